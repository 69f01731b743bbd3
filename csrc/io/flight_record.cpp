#include "wamcore/flight_record.h"

#include <sstream>

#include "io/safetensors.h"
#include "wamcore/error.h"

namespace wam {
namespace {

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream rest(text);
  for (std::string word; std::getline(rest, word, ',');) out.push_back(word);
  return out;
}

template <typename Kind>
std::vector<std::string> names(int count) {
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.emplace_back(name(static_cast<Kind>(i)));
  return out;
}

/// Takes columns out of a file, checking their type and shape.
struct Reader {
  const SafetensorsFile& file;

  const std::string& note(const std::string& key) const {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) throw InputError("it says no " + key);
    return found->second;
  }
  template <typename T>
  void take(const std::string& name, DType dtype, const Shape& shape, std::vector<T>& out) const {
    const TensorEntry* entry = file.find(name);
    if (!entry) throw InputError("column " + name + " is missing");
    if (entry->dtype != dtype || entry->shape != shape)
      throw InputError("column " + name + " wants " + dtype_name(dtype) + " " + shape_string(shape) + ", got " +
                       dtype_name(entry->dtype) + " " + shape_string(entry->shape));
    out.resize(static_cast<size_t>(entry->bytes) / sizeof(T));
    file.read(*entry, 0, out.data(), static_cast<size_t>(entry->bytes));
  }
};

FlightRecord read(const SafetensorsFile& file) {
  const Reader reader{file};
  if (reader.note("format") != "wamcore flight record 1") throw InputError("its format is " + reader.note("format"));
  if (words(reader.note("phases")) != names<Phase>(kPhases) || words(reader.note("reasons")) != names<Reason>(kReasons))
    throw InputError("its phases and reasons are those of another version");
  FlightRecord out;
  RunRecord& r = out.record;
  JointLimits& l = out.notes.limits;
  out.notes.why = reader.note("why");
  l.names = words(reader.note("joints"));
  r.dof = l.dof();
  const TensorEntry* times = file.find("t_ns");
  const int64_t n = times && times->shape.size() == 1 ? times->shape[0] : -1, dof = r.dof;
  reader.take("t_ns", DType::i64, {n}, r.t_ns);
  reader.take("tick", DType::f64, {n}, r.tick);
  reader.take("command", DType::f64, {n, dof}, r.command);
  reader.take("reference", DType::f64, {n, dof}, r.reference);
  reader.take("measured", DType::f64, {n, dof}, r.measured);
  reader.take("obs_age", DType::f64, {n}, r.obs_age);
  reader.take("seam", DType::f64, {n}, r.seam);
  reader.take("chunk", DType::i64, {n}, r.chunk);
  reader.take("phase", DType::u8, {n}, r.phase);
  reader.take("reason", DType::u8, {n}, r.reason);
  reader.take("position_min", DType::f64, {dof}, l.position_min);
  reader.take("position_max", DType::f64, {dof}, l.position_max);
  reader.take("velocity_max", DType::f64, {dof}, l.velocity);
  reader.take("acceleration_max", DType::f64, {dof}, l.acceleration);
  reader.take("jerk_max", DType::f64, {dof}, l.jerk);
  return out;
}

}  // namespace

FlightRecord read_record(const std::string& path) {
  try {
    return read(SafetensorsFile(path));
  } catch (const Error& e) {
    throw InputError("read_record: " + path + " is no flight record: " + e.what());
  }
}

Recording recording_of(const FlightRecord& flight) {
  Recording out{.t_ns = flight.record.t_ns, .measured = flight.record.measured, .command = flight.record.command};
  for (const std::string& joint : flight.notes.limits.names) out.joints.push_back({.name = joint});
  return out;
}

}  // namespace wam
