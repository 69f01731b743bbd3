#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "wamcore/export.h"

namespace wam {

/// What the large products of a model's layers are computed in, and their weights kept in. Sums are float32 or int32;
/// what is sensitive and small (time, heads, embeddings) stays in the backend's widest.
enum class Precision : uint8_t { automatic, float32, bfloat16, fp8, int8 };

/// "auto", "float32", "bfloat16", "fp8" or "int8".
WAMCORE_API const char* name_of(Precision precision);
/// Throws ConfigError for any other name.
WAMCORE_API Precision precision_of(const std::string& name);

/// What a backend runs when `wanted` is asked for: `has` lists what it can, and automatic is the first of these. Throws
/// DeviceError for what is not among them.
WAMCORE_API Precision choose_precision(std::string_view device, Precision wanted, std::span<const Precision> has);

}  // namespace wam
