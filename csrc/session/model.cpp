#include "wamcore/model.h"

#include <filesystem>

#include "io/convert.h"
#include "io/weight_store.h"
#include "session/dreamzero_model.h"
#include "session/image_pipeline.h"
#include "wamcore/error.h"

namespace wam {
namespace {

constexpr const char* kDitPrefix = "action_head.model.";
constexpr const char* kTextPrefix = "action_head.text_encoder.";
constexpr const char* kVaePrefix = "action_head.vae.model.";
constexpr const char* kClipPrefix = "action_head.image_encoder.model.";

// A weight that is not finite makes every action NaN: it is refused here, whatever the device does with it later.
WeightSource prefixed(WeightStore& store, const std::string& prefix) {
  return [&store, prefix](const std::string& name, const Shape& shape) {
    Tensor weight = store.f32(prefix + name, shape);
    const int64_t at = first_non_finite(weight.raw(), DType::f32, weight.numel());
    if (at >= 0)
      throw WeightError("weight '" + prefix + name + "' " + shape_string(shape) + ": element " + std::to_string(at) +
                        " is not finite");
    return weight;
  };
}

// Keys that a component's checkpoint carries and no pass reads, say CLIP's last block.
void ignore_unused(WeightStore& store, const std::string& prefix, const std::vector<KeySpec>& keys) {
  for (const KeySpec& key : keys)
    if (!key.used && store.contains(prefix + key.name)) store.ignore(prefix + key.name);
}

void check(const DreamZeroConfig& c, const Embodiment& e) {
  const auto fail = [](const std::string& what) { throw ConfigError("embodiment.json and config.json: " + what); };
  if (e.action_dim() > c.action_dim)
    fail("the robot has " + std::to_string(e.action_dim()) + " action channels, the model " +
         std::to_string(c.action_dim));
  if (e.state_dim() > c.dit.max_state_dim)
    fail("the robot has " + std::to_string(e.state_dim()) + " state channels, the model " +
         std::to_string(c.dit.max_state_dim));
  for (const ChannelGroup& g : e.action)
    if (g.per_horizon && g.statistics.rows != c.action_horizon)
      fail("action '" + g.key + "' has statistics for " + std::to_string(g.statistics.rows) + " steps of " +
           std::to_string(c.action_horizon));
}

}  // namespace

Model::~Model() = default;

DreamZeroModel::DreamZeroModel(const std::string& dir, const LoadOptions& options, const SyntheticWeights* synthetic,
                               std::shared_ptr<Backend> given)
    : config(DreamZeroConfig::read(dir + "/config.json")), embodiment_(Embodiment::read(dir + "/embodiment.json")) {
  check(config, embodiment_);
  const Precision wanted = precision_of(options.dtype);
  const ImagePipeline pipeline(embodiment_, static_cast<int>(config.target_height),
                               static_cast<int>(config.target_width));
  height = pipeline.height(), width = pipeline.width();
  const int64_t stride = config.vae.spatial_stride();
  if (height % stride || width % stride)
    throw ConfigError("embodiment.json: the picture is " + std::to_string(height) + " x " + std::to_string(width) +
                      " pixels, wanted multiples of " + std::to_string(stride));
  dit = std::make_shared<DreamZero>(config.dit, DreamZero::Grid2{height / stride, width / stride}, kDitPrefix);
  backend = given ? std::move(given) : make_backend(options.device, options.threads, options.cores);
  if (synthetic)
    make_weights(wanted, *synthetic);
  else
    read_weights(dir, wanted, options.check_finite);
}

void DreamZeroModel::read_weights(const std::string& dir, Precision precision, bool check_finite) {
  WeightStore store = WeightStore::open(dir);
  if (check_finite) store.check_finite();
  for (const std::string& name : store.names()) parameters_ += numel(store.entry(name).shape);

  dit->load(backend, prefixed(store, ""), precision);
  text = std::make_unique<TextEncoder>(config.text, prefixed(store, kTextPrefix), backend);
  bool decoder = false;
  for (const KeySpec& key : Vae::keys(config.vae))
    decoder = decoder || (Vae::is_decoder_key(key.name) && store.contains(kVaePrefix + key.name));
  vae = std::make_unique<Vae>(config.vae, prefixed(store, kVaePrefix), backend, decoder);
  if (config.clip) {
    clip = std::make_unique<ClipVision>(*config.clip, prefixed(store, kClipPrefix), backend);
    ignore_unused(store, kClipPrefix, ClipVision::keys(*config.clip));
  }
  store.check_all_used();
  const std::string words = dir + "/tokenizer.json";
  if (std::filesystem::exists(words)) tokenizer = std::make_unique<WordTokenizer>(words, config.text.vocab);
}

void DreamZeroModel::make_weights(Precision precision, const SyntheticWeights& weights) {
  const WeightSource source = [&](const std::string& name, const Shape& shape) {
    parameters_ += numel(shape);
    return weights.draw(name, shape);
  };
  dit->load(backend, source, precision);
  text = std::make_unique<TextEncoder>(config.text, source, backend);
  vae = std::make_unique<Vae>(config.vae, source, backend, /*decoder=*/false);
  if (config.clip) clip = std::make_unique<ClipVision>(*config.clip, source, backend);
}

std::shared_ptr<const Model> Model::load(const std::string& dir, const LoadOptions& options) {
  if (!std::filesystem::is_directory(dir)) throw ConfigError("Model::load: no folder '" + dir + "'");
  return std::make_shared<const DreamZeroModel>(dir, options);
}

std::shared_ptr<const Model> synthetic_model(const std::string& dir, const LoadOptions& options, uint64_t seed) {
  const SyntheticWeights weights(seed);
  return std::make_shared<const DreamZeroModel>(dir, options, &weights);
}

}  // namespace wam
