#pragma once

#include <string>

#include "wamcore/replay_hal.h"
#include "wamcore/runner.h"

namespace wam {

/// What the file of a flight record holds.
struct FlightRecord {
  RunRecord record;
  RecordNotes notes;
};

/// Reads what write_record wrote. Throws InputError for a file that is no flight record, or damaged.
WAMCORE_API FlightRecord read_record(const std::string& path);

/// The part of a record that ReplayHal plays back: joints by their names, times, measured joints and commands.
WAMCORE_API Recording recording_of(const FlightRecord& flight);

}  // namespace wam
