#include <bit>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "record.h"
#include "wamcore/error.h"

namespace wam {
namespace {

static_assert(std::endian::native == std::endian::little, "the columns are written as they lie in memory");

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
    else
      out += ' ';
  }
  return out + "\"";
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : ",") + w;
  return out;
}

/// One file in the making: a header of JSON, then the columns one after the other.
struct Writer {
  std::string header, data;

  template <typename T>
  void add(const char* name, const char* dtype, const std::vector<T>& column, size_t width) {
    const size_t rows = width ? column.size() / width : 0, bytes = column.size() * sizeof(T);
    header += "," + quoted(name) + ":{\"dtype\":\"" + dtype + "\",\"shape\":[" + std::to_string(rows);
    if (width != 1) header += "," + std::to_string(width);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," + std::to_string(data.size() + bytes) + "]}";
    data.append(reinterpret_cast<const char*>(column.data()), bytes);
  }
  void write(const std::string& path) {
    while (header.size() % 8) header += ' ';
    const uint64_t size = header.size();
    // Under another name first: what bears the name is whole.
    const std::string draft = path + ".part";
    std::FILE* file = std::fopen(draft.c_str(), "wb");
    bool good = file != nullptr;
    if (file) {
      good = std::fwrite(&size, sizeof size, 1, file) == 1 &&
             std::fwrite(header.data(), 1, header.size(), file) == header.size() &&
             std::fwrite(data.data(), 1, data.size(), file) == data.size();
      good = std::fclose(file) == 0 && good;
    }
    std::error_code error;
    if (good) std::filesystem::rename(draft, path, error);
    if (!good || error) throw ConfigError("write_record: could not write " + path);
  }
};

}  // namespace

void write_record(const RunRecord& r, const RecordNotes& notes, const std::string& path) {
  std::vector<std::string> reasons, phases;
  for (int i = 0; i < kReasons; ++i) reasons.emplace_back(name(static_cast<Reason>(i)));
  for (int i = 0; i < kPhases; ++i) phases.emplace_back(name(static_cast<Phase>(i)));
  const auto dof = static_cast<size_t>(r.dof);
  Writer w;
  w.header = "{\"__metadata__\":{\"format\":\"wamcore flight record 1\",\"why\":" + quoted(notes.why) +
             ",\"joints\":" + quoted(joined(notes.limits.names)) + ",\"reasons\":" + quoted(joined(reasons)) +
             ",\"phases\":" + quoted(joined(phases)) + "}";
  w.add("t_ns", "I64", r.t_ns, 1);
  w.add("tick", "F64", r.tick, 1);
  w.add("command", "F64", r.command, dof);
  w.add("reference", "F64", r.reference, dof);
  w.add("measured", "F64", r.measured, dof);
  w.add("obs_age", "F64", r.obs_age, 1);
  w.add("seam", "F64", r.seam, 1);
  w.add("chunk", "I64", r.chunk, 1);
  w.add("position_min", "F64", notes.limits.position_min, 1);
  w.add("position_max", "F64", notes.limits.position_max, 1);
  w.add("velocity_max", "F64", notes.limits.velocity, 1);
  w.add("acceleration_max", "F64", notes.limits.acceleration, 1);
  std::vector<double> jerk;
  for (int j = 0; j < notes.limits.dof(); ++j) jerk.push_back(notes.limits.jerk_of(j));
  w.add("jerk_max", "F64", jerk, 1);
  w.add("phase", "U8", r.phase, 1);
  w.add("reason", "U8", r.reason, 1);
  w.header += "}";
  w.write(path);
}

}  // namespace wam
