#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// Word-level tokenizer of a small model, from tokenizer.json:
/// {"type": "word", "vocab": {word: id}, "pad": id, "unk": id, "eos": id or null}. Text is lower-cased and split at
/// white space; words that are not in the vocabulary become "unk"; "eos" is appended.
class WAMCORE_API WordTokenizer {
 public:
  /// Throws ConfigError, also when an id is not below `vocab_size`.
  WordTokenizer(const std::string& path, int64_t vocab_size);
  /// The ids of a text, without padding.
  std::vector<int64_t> encode(const std::string& text) const;

 private:
  std::unordered_map<std::string, int64_t> vocab_;
  int64_t unk_ = 0, eos_ = -1;
};

}  // namespace wam
