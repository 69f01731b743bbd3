// A MuJoCo world as a robot driver after wamcore/hal_abi.h: the physics of wamcore.hal.MuJoCo without Python in the
// loop. `wamcore build-driver mujoco` compiles it against the installed mujoco package. Parameters of configure:
// `model`, the path of an MJCF file; `joints`, their order, separated by commas (default: that of the position
// actuators).
#include <mujoco/mujoco.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "wamcore/hal_abi.h"

namespace {

constexpr double kMaxStep = 0.1;  // s of physics that one command may cause: after a pause the world does not race

struct World {
  std::mutex mutex;  // a simulator's luxury: a real driver's read and write take no lock
  mjModel* model = nullptr;
  mjData* data = nullptr;
  std::vector<std::string> names;
  std::vector<int> actuator, qpos, dof;  // [joints] where each lies in the model
  std::vector<wamcore_hal_joint> joints;
  wamcore_hal_description description{};
  double remainder = 0.0;  // s of time asked for and not yet simulated
  uint64_t last_ns = 0;    // time of the last command; 0 = none since activate
  uint64_t until_ns = 0;   // when it expires
  bool lapsed = false;     // a command has expired before the next came
  bool active = false;
  std::string why;

  void free() {
    mj_deleteData(data);
    mj_deleteModel(model);
    data = nullptr, model = nullptr;
  }
};

constexpr uint32_t kLapsed = 1;  // fault bit: a command has expired before the next came

/// Whether an actuator acts on a joint and its command is that joint's position.
bool drives_position(const mjModel* m, int i) {
  const mjtNum kp = m->actuator_gainprm[i * mjNGAIN];
  return m->actuator_trntype[i] == mjTRN_JOINT && kp > 0 && m->actuator_biasprm[i * mjNBIAS + 1] == -kp;
}

/// Fills the world from a file; says what is wrong, or "".
std::string open(World& w, const std::string& path, const std::string& order) {
  char error[1000] = "";
  w.model = mj_loadXML(path.c_str(), nullptr, error, sizeof error);
  if (!w.model) return path + ": " + error;
  w.data = mj_makeData(w.model);
  const mjModel* m = w.model;
  std::vector<int> driven;  // [nu] joint of each position actuator
  for (int i = 0; i < m->nu; ++i) driven.push_back(drives_position(m, i) ? m->actuator_trnid[2 * i] : -1);
  std::vector<int> wanted;
  std::istringstream words(order);
  for (std::string word; std::getline(words, word, ',');) {
    const int joint = mj_name2id(m, mjOBJ_JOINT, word.c_str());
    if (joint < 0 || std::find(driven.begin(), driven.end(), joint) == driven.end())
      return "wanted a joint with a position actuator, got '" + word + "'";
    wanted.push_back(joint);
  }
  if (order.empty())
    for (const int joint : driven)
      if (joint >= 0) wanted.push_back(joint);
  if (wanted.empty()) return "no joint has a position actuator";
  w.names.clear(), w.joints.clear(), w.actuator.clear(), w.qpos.clear(), w.dof.clear();
  for (const int joint : wanted) {
    const char* name = mj_id2name(m, mjOBJ_JOINT, joint);
    w.names.emplace_back(name ? name : "");
    if (!m->jnt_limited[joint]) return "joint '" + w.names.back() + "' has no range";
    w.actuator.push_back(static_cast<int>(std::find(driven.begin(), driven.end(), joint) - driven.begin()));
    w.qpos.push_back(m->jnt_qposadr[joint]);
    w.dof.push_back(m->jnt_dofadr[joint]);
  }
  for (size_t j = 0; j < wanted.size(); ++j) {
    const mjtNum* range = m->jnt_range + 2 * wanted[j];
    w.joints.push_back(
        {w.names[j].c_str(), range[0], range[1], HUGE_VAL, HUGE_VAL, HUGE_VAL, 1u});  // MJCF states no rates
  }
  mj_forward(m, w.data);
  for (size_t j = 0; j < wanted.size(); ++j) w.data->ctrl[w.actuator[j]] = w.data->qpos[w.qpos[j]];
  w.description = {w.joints.data(), static_cast<int32_t>(w.joints.size()), nullptr, 0, 0.0, 1};
  w.remainder = 0.0;
  return "";
}

int configure(void* self, double, const char* const* keys, const char* const* values, int32_t count,
              const wamcore_hal_description** out) {
  World& w = *static_cast<World*>(self);
  *out = &w.description;
  if (w.model) return WAMCORE_HAL_OK;  // again
  std::string model, joints;
  for (int32_t i = 0; i < count; ++i) {
    if (std::strcmp(keys[i], "model") != 0 && std::strcmp(keys[i], "joints") != 0) {
      w.why = std::string("knows the parameters 'model' and 'joints', got '") + keys[i] + "'";
      return WAMCORE_HAL_FAULT;
    }
    (std::strcmp(keys[i], "model") == 0 ? model : joints) = values[i];
  }
  w.why = model.empty() ? "wants the parameter 'model', the path of an MJCF file" : open(w, model, joints);
  if (w.why.empty()) return WAMCORE_HAL_OK;
  w.free();
  return WAMCORE_HAL_FAULT;
}

int activate(void* self, int32_t mode) {
  World& w = *static_cast<World*>(self);
  if (mode != 0 || !w.model) return w.why = "knows position mode only", WAMCORE_HAL_FAULT;
  const std::lock_guard<std::mutex> lock(w.mutex);
  w.active = true, w.lapsed = false;
  w.last_ns = w.until_ns = 0;
  return WAMCORE_HAL_OK;
}

int read_joints(void* self, wamcore_hal_state* state) {
  World& w = *static_cast<World*>(self);
  if (!w.model) return WAMCORE_HAL_FAULT;
  const std::lock_guard<std::mutex> lock(w.mutex);
  state->fault_bits = w.lapsed ? kLapsed : 0;
  for (size_t j = 0; j < w.qpos.size(); ++j) {
    state->q[j] = w.data->qpos[w.qpos[j]];
    state->dq[j] = w.data->qvel[w.dof[j]];
    state->tau[j] = w.data->qfrc_actuator[w.dof[j]];
  }
  return WAMCORE_HAL_OK;
}

/// Lets `seconds` of physics pass; what is less than a time step waits for the next call.
void advance(World& w, double seconds) {
  w.remainder += seconds;
  while (w.remainder >= w.model->opt.timestep - 1e-9) {
    w.remainder -= w.model->opt.timestep;
    mj_step(w.model, w.data);
  }
}

int write_command(void* self, const wamcore_hal_command* command) {
  World& w = *static_cast<World*>(self);
  if (!w.active || !command->q) return WAMCORE_HAL_FAULT;
  if (command->valid_until_ns <= command->t_ns)
    return w.why = "refused a command that had expired when it was issued", WAMCORE_HAL_FAULT;
  const std::lock_guard<std::mutex> lock(w.mutex);
  double passed = w.last_ns ? std::min(static_cast<double>(command->t_ns - w.last_ns) * 1e-9, kMaxStep) : 0.0;
  if (w.last_ns && command->t_ns > w.until_ns) {  // the arm followed the last command until that expired, then it stood
    const double driven = std::min(static_cast<double>(w.until_ns - w.last_ns) * 1e-9, passed);
    advance(w, driven);
    for (size_t j = 0; j < w.actuator.size(); ++j) w.data->ctrl[w.actuator[j]] = w.data->qpos[w.qpos[j]];
    advance(w, passed - driven);
    passed = 0.0, w.lapsed = true;
  }
  w.last_ns = command->t_ns, w.until_ns = command->valid_until_ns;
  for (size_t j = 0; j < w.actuator.size(); ++j) w.data->ctrl[w.actuator[j]] = command->q[j];
  advance(w, passed);
  return WAMCORE_HAL_OK;
}

int deactivate(void* self) { return static_cast<World*>(self)->active = false, WAMCORE_HAL_OK; }
void stop(void* self, int32_t) { static_cast<World*>(self)->active = false; }
void close_world(void* self) { static_cast<World*>(self)->active = false; }
const char* error(void* self) { return static_cast<World*>(self)->why.c_str(); }
void destroy(void* self) {
  World* w = static_cast<World*>(self);
  w->free();
  delete w;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int wamcore_hal_open(const char* name, wamcore_hal* out) {
  if (*name && std::strcmp(name, "mujoco") != 0) return 1;
  wamcore_hal hal = {WAMCORE_HAL_ABI, sizeof hal, new World,   configure, activate, read_joints, write_command,
                     deactivate,      stop,       close_world, nullptr,   error,    destroy};
  *out = hal;
  return 0;
}
