class Arm(wam.Hal):
    def configure(self, config):  # connect; may be slow; moves nothing
        self.bus = Bus(config.parameters["port"])
        return wam.Description([wam.JointInfo(n, -2.0, 2.0) for n in ("shoulder", "elbow")])  # rad

    def activate(self, mode):
        self.bus.enable(self.bus.angles())  # hold what is measured

    def read(self):
        return self.bus.angles(), self.bus.speeds()  # rad, rad/s

    def write(self, command):  # the device refuses it after valid_until_ns
        self.bus.move(command.q, command.valid_until_ns)

    def stop(self, kind=None):
        self.bus.halt()

    deactivate = stop

    def close(self):
        self.bus.close()
