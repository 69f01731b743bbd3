#include "model/codecs/open.h"

#include <algorithm>

#include "io/weight_store.h"
#include "wamcore/error.h"

namespace wam {
namespace {

template <typename Config>
Config parse(const std::string& text) {
  const json::Value document = json::parse(text, "config");
  return Config::parse({document, "config"});
}

WeightStore open_store(const ComponentFiles& files) {
  if (files.weights.empty()) throw WeightError("open: wanted at least one weight file");
  WeightStore store = WeightStore::open(files.weights.front());
  for (size_t i = 1; i < files.weights.size(); ++i) store.attach(WeightStore::open(files.weights[i]));
  return store;
}

WeightSource source(WeightStore& store) {
  return [&store](const std::string& name, const Shape& shape) { return store.f32(name, shape); };
}

}  // namespace

std::unique_ptr<Vae> open_vae(const ComponentFiles& files) {
  const auto config = parse<VaeConfig>(files.config);
  WeightStore store = open_store(files);
  const auto names = store.names();
  const bool decoder = std::any_of(names.begin(), names.end(), Vae::is_decoder_key);
  auto vae = std::make_unique<Vae>(config, source(store), make_backend(files.device, files.threads), decoder);
  store.check_all_used();
  return vae;
}

std::vector<KeySpec> vae_keys(const std::string& config) { return Vae::keys(parse<VaeConfig>(config)); }

}  // namespace wam
