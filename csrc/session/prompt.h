#pragma once

#include <string>

#include "wamcore/export.h"

namespace wam {

/// The prompt of the unconditional branch that the Wan models were trained with.
WAMCORE_API extern const char* const kNegativePrompt;

/// The string given to the tokenizer: markers removed, a Python literal unwrapped (upstream evaluates the instruction
/// when it parses as one: a string gives its text, a list or tuple its first element), lower-cased, put for every {} of
/// the template, HTML entities unescaped twice, white space collapsed. Unicode is not repaired (upstream runs ftfy).
WAMCORE_API std::string format_prompt(const std::string& prompt_template, const std::string& instruction);

}  // namespace wam
