#include "session/tokenizer.h"

#include <cctype>
#include <sstream>

#include "io/json.h"

namespace wam {

WordTokenizer::WordTokenizer(const std::string& path, int64_t vocab_size) {
  const json::Value document = json::read(path);
  json::Fields f = json::Node(document, "tokenizer").fields();
  f.need("type").choice({"word"});
  json::Fields vocab = f.need("vocab").fields();
  for (const std::string& word : vocab.keys()) vocab_[word] = vocab.need(word).integer(0, vocab_size - 1);
  f.need("pad").integer(0, vocab_size - 1);
  unk_ = f.need("unk").integer(0, vocab_size - 1);
  const json::Node eos = f.need("eos");
  if (!eos.is_null()) eos_ = eos.integer(0, vocab_size - 1);
  f.finish();
}

std::vector<int64_t> WordTokenizer::encode(const std::string& text) const {
  std::string lower = text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::vector<int64_t> ids;
  std::istringstream words(lower);
  for (std::string word; words >> word;) {
    const auto it = vocab_.find(word);
    ids.push_back(it == vocab_.end() ? unk_ : it->second);
  }
  if (eos_ >= 0) ids.push_back(eos_);
  return ids;
}

}  // namespace wam
