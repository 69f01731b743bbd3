"""MJCF of the tabletop scene: a 4-joint arm with a paddle finger, three coloured blocks, one camera."""

LINK_1 = 0.24  # m, shoulder to elbow
LINK_2 = 0.24  # m, elbow to wrist
FINGER = 0.12  # m, wrist to fingertip
SHOULDER_Z = 0.14  # m above the table
BLOCK_HALF = 0.028  # m
LINE_Y = 0.17  # m, a pushed block has arrived when its centre is beyond this line

# bright and far apart: a codec of 16x16 pixel cells must keep them apart
COLOURS = {
    "red": (0.95, 0.10, 0.10),
    "green": (0.10, 0.85, 0.20),
    "blue": (0.15, 0.35, 1.00),
    "yellow": (1.00, 0.85, 0.05),
}

JOINTS = ("yaw", "shoulder", "elbow", "wrist")
_AXES = ("0 0 1", "0 -1 0", "0 -1 0", "0 -1 0")
POSITION_MIN = (-1.6, -0.6, -2.9, -3.0)  # rad
POSITION_MAX = (1.6, 2.2, 0.2, 1.5)  # rad
VELOCITY_MAX = (3.0, 3.0, 4.0, 4.0)  # rad/s
ACCELERATION_MAX = (60.0, 60.0, 80.0, 80.0)  # rad/s^2
_KP = (120, 120, 120, 30)  # N m/rad
_KV = (6, 6, 6, 1.5)  # N m s/rad: a lag of about 50 ms
_ARMATURE = (0.02, 0.02, 0.02, 0.01)  # kg m^2

TIMESTEP = 0.005  # s


def _joint(index: int) -> str:
    low, high = POSITION_MIN[index], POSITION_MAX[index]
    return (
        f'<joint name="{JOINTS[index]}" axis="{_AXES[index]}" range="{low} {high}" limited="true" '
        f'damping="0.5" armature="{_ARMATURE[index]}"/>'
    )


def _block(index: int) -> str:
    h = BLOCK_HALF
    return (
        f'<body name="block{index}" pos="0.3 {0.12 * (index - 1)} {h}"><freejoint name="block{index}"/>'
        f'<geom name="block{index}" type="box" size="{h} {h} {h}" rgba="1 0 0 1" mass="0.05" '
        'friction="0.5 0.005 0.0001"/></body>'
    )


def mjcf() -> str:
    """The scene as an MJCF document."""
    link = 'type="capsule" rgba="0.72 0.72 0.76 1" contype="0" conaffinity="0"'
    zone = 'type="box" size="0.22 0.1 0.0008" contype="0" conaffinity="0"'
    zone_y = LINE_Y + 0.1
    finger = (FINGER - 0.02) / 2
    actuators = "".join(
        f'<position name="{JOINTS[i]}" joint="{JOINTS[i]}" kp="{_KP[i]}" kv="{_KV[i]}"/>' for i in range(4)
    )
    return f"""<mujoco model="wamcore tabletop">
<compiler angle="radian"/>
<option timestep="{TIMESTEP}" integrator="implicitfast"/>
<visual>
  <quality shadowsize="0" offsamples="0"/>
  <global offwidth="960" offheight="640"/>
  <headlight ambient="0.62 0.62 0.62" diffuse="0.42 0.42 0.42" specular="0 0 0"/>
</visual>
<worldbody>
  <geom name="table" type="plane" size="0.9 0.9 0.1" rgba="0.26 0.25 0.25 1" friction="0.5 0.005 0.0001"/>
  <geom {zone} pos="0.26 {zone_y} 0.0008" rgba="0.44 0.40 0.50 1"/>
  <geom {zone} pos="0.26 {-zone_y} 0.0008" rgba="0.36 0.45 0.45 1"/>
  <camera name="scene" pos="0.82 0 0.60" xyaxes="0 1 0 -0.655 0 0.755" fovy="31"/>
  <body name="base" pos="0 0 {SHOULDER_Z}" gravcomp="1">
    <geom type="cylinder" size="0.05 {SHOULDER_Z / 2}" pos="0 0 {-SHOULDER_Z / 2}" rgba="0.2 0.2 0.22 1"
          contype="0" conaffinity="0"/>
    {_joint(0)}
    <body name="upper" gravcomp="1">{_joint(1)}
      <geom {link} fromto="0 0 0 {LINK_1} 0 0" size="0.020" mass="0.2"/>
      <body name="fore" pos="{LINK_1} 0 0" gravcomp="1">{_joint(2)}
        <geom {link} fromto="0 0 0 {LINK_2} 0 0" size="0.017" mass="0.15"/>
        <body name="hand" pos="{LINK_2} 0 0" gravcomp="1">{_joint(3)}
          <geom name="finger" type="box" size="{finger} 0.008 0.022" pos="{finger + 0.02} 0 0"
                rgba="1 1 1 1" mass="0.03" friction="0.3 0.005 0.0001"/>
          <site name="tip" pos="{FINGER} 0 0"/>
        </body>
      </body>
    </body>
  </body>
  {"".join(_block(i) for i in range(3))}
</worldbody>
<actuator>{actuators}</actuator>
</mujoco>"""
