#include "model/codecs/vae_config.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "model/codecs/frames.h"
#include "wamcore/error.h"

namespace wam {
namespace {

// Statistics of the published latents.
constexpr float kMean16[] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,  -0.1517f, 1.5508f,
                             0.4134f,  -0.0715f, 0.5517f,  -0.3632f, -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
constexpr float kStd16[] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f, 2.6052f, 2.0743f,
                            3.2687f, 2.1526f, 2.8652f, 1.5579f, 1.6382f, 1.1253f, 2.8251f, 1.9160f};
constexpr float kMean48[] = {-0.2289f, -0.0052f, -0.1323f, -0.2339f, -0.2799f, 0.0174f,  0.1838f,  0.1557f,
                             -0.1382f, 0.0542f,  0.2813f,  0.0891f,  0.1570f,  -0.0098f, 0.0375f,  -0.1825f,
                             -0.2246f, -0.1207f, -0.0698f, 0.5109f,  0.2665f,  -0.2108f, -0.2158f, 0.2502f,
                             -0.2055f, -0.0322f, 0.1109f,  0.1567f,  -0.0729f, 0.0899f,  -0.2799f, -0.1230f,
                             -0.0313f, -0.1649f, 0.0117f,  0.0723f,  -0.2839f, -0.2083f, -0.0520f, 0.3748f,
                             0.0152f,  0.1957f,  0.1433f,  -0.2944f, 0.3573f,  -0.0548f, -0.1681f, -0.0667f};
constexpr float kStd48[] = {0.4765f, 1.0364f, 0.4514f, 1.1677f, 0.5313f, 0.4990f, 0.4818f, 0.5013f, 0.8158f, 1.0344f,
                            0.5894f, 1.0901f, 0.6885f, 0.6165f, 0.8454f, 0.4978f, 0.5759f, 0.3523f, 0.7135f, 0.6804f,
                            0.5833f, 1.4146f, 0.8986f, 0.5659f, 0.7069f, 0.5338f, 0.4889f, 0.4917f, 0.4069f, 0.4999f,
                            0.6866f, 0.4093f, 0.5709f, 0.6065f, 0.6415f, 0.4944f, 0.5726f, 1.2042f, 0.5458f, 1.6887f,
                            0.3971f, 1.0600f, 0.3943f, 0.5537f, 0.5444f, 0.4089f, 0.7468f, 0.7744f};

// A level's widths times the largest head the attention kernel takes.
constexpr int64_t kMaxAttentionWidth = 1024;

void want(bool good, const std::string& what) {
  if (!good) throw ConfigError("VaeConfig: " + what);
}

std::vector<float> published(std::span<const float> for16, std::span<const float> for48, int64_t z, const char* name) {
  want(z == 16 || z == 48,
       std::string(name) + " is missing, and only 16 and 48 channels have published values, not " + std::to_string(z));
  const auto values = z == 16 ? for16 : for48;
  return {values.begin(), values.end()};
}

std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

}  // namespace

VaeConfig VaeConfig::parse(const json::Node& node) {
  json::Fields fields = node.fields();
  VaeConfig c;
  const auto patch = fields.find("patch_size");
  const bool has_patch = patch && !patch->is_null();
  const auto version = fields.find("version");
  c.wan22 = version ? version->choice({"2.1", "2.2"}) == 1 : has_patch;
  if (c.wan22 != has_patch)
    node.fail(has_patch ? "patch_size does not go with version 2.1" : "version 2.2 wants a patch_size");
  if (has_patch) c.patch_size = patch->integer(1, 8);
  constexpr int64_t kMost = 1 << 14;
  c.dim = fields.need("dim").integer(1, kMost);
  const auto dec = fields.find("dec_dim");
  c.dec_dim = dec && !dec->is_null() ? dec->integer(1, kMost) : c.dim;
  c.z_dim = fields.need("z_dim").integer(1, kMost);
  c.dim_mult = fields.need("dim_mult").integers();
  c.num_res_blocks = fields.need("num_res_blocks").integer(1, 64);
  c.temporal_downsample.clear();
  for (const json::Node& flag : fields.need("temporal_downsample").array())
    c.temporal_downsample.push_back(flag.boolean());
  if (const auto mean = fields.find("latents_mean")) c.latents_mean = floats(mean->numbers());
  if (const auto std = fields.find("latents_std")) c.latents_std = floats(std->numbers());
  fields.finish();
  c.check();
  return c;
}

void VaeConfig::check() {
  const size_t levels = dim_mult.size();
  want(levels >= 1 && levels <= 8, "wanted 1 to 8 levels in dim_mult, got " + std::to_string(levels));
  want(temporal_downsample.size() + 1 == levels, "wanted " + std::to_string(levels - 1) +
                                                     " flags in temporal_downsample, got " +
                                                     std::to_string(temporal_downsample.size()));
  want(temporal_stride() <= kMaxFrames, "wanted a temporal stride of at most " + std::to_string(kMaxFrames) + ", got " +
                                            std::to_string(temporal_stride()));
  for (const int64_t m : dim_mult)
    want(m >= 1 && m <= 64, "wanted factors 1 to 64 in dim_mult, got " + std::to_string(m));
  const int64_t middle = std::max(dim, dec_dim) * dim_mult.back();
  want(middle <= kMaxAttentionWidth, "wanted at most " + std::to_string(kMaxAttentionWidth) +
                                         " channels in the middle, got " + std::to_string(middle));
  if (latents_mean.empty()) latents_mean = published(kMean16, kMean48, z_dim, "latents_mean");
  if (latents_std.empty()) latents_std = published(kStd16, kStd48, z_dim, "latents_std");
  for (const auto* values : {&latents_mean, &latents_std}) {
    const char* name = values == &latents_mean ? "latents_mean" : "latents_std";
    want(static_cast<int64_t>(values->size()) == z_dim,
         "wanted " + std::to_string(z_dim) + " numbers in " + name + ", got " + std::to_string(values->size()));
    for (const float v : *values) want(std::isfinite(v), std::string(name) + " has a number that is not finite");
  }
  for (const float v : latents_std) want(v > 0, "wanted latents_std above 0, got " + std::to_string(v));
}

int64_t VaeConfig::temporal_stride() const {
  return int64_t{1} << std::count(temporal_downsample.begin(), temporal_downsample.end(), true);
}

int64_t VaeConfig::spatial_stride() const { return patch_size << (dim_mult.size() - 1); }

}  // namespace wam
