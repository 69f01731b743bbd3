#include "model/families/dreamzero_config.h"

namespace wam {
namespace {

constexpr int64_t kMost = int64_t{1} << 20;  // no size of such a model is near this; products stay far from overflow

int64_t size(json::Fields& f, const char* key, int64_t least = 1) { return f.need(key).integer(least, kMost); }

}  // namespace

DitConfig read_dit_config(const json::Node& node) {
  json::Fields f = node.fields();
  DitConfig c;
  c.model_type = f.need("model_type").choice({"i2v", "ti2v"}) == 0 ? "i2v" : "ti2v";
  c.frame_seqlen = size(f, "frame_seqlen");
  c.text_len = size(f, "text_len"), c.text_dim = size(f, "text_dim");
  c.in_dim = size(f, "in_dim"), c.out_dim = size(f, "out_dim");
  c.dim = size(f, "dim"), c.ffn_dim = size(f, "ffn_dim"), c.freq_dim = size(f, "freq_dim");
  c.num_heads = size(f, "num_heads"), c.num_layers = size(f, "num_layers");
  c.max_chunk_size = size(f, "max_chunk_size");
  c.num_frame_per_block = size(f, "num_frame_per_block");
  c.num_action_per_block = size(f, "num_action_per_block");
  c.num_state_per_block = size(f, "num_state_per_block");
  c.action_dim = size(f, "action_dim"), c.max_state_dim = size(f, "max_state_dim");
  c.hidden_size = size(f, "hidden_size");
  c.eps = f.need("eps").number();
  c.concat_first_frame_latent = f.need("concat_first_frame_latent").boolean();
  const json::Node clip_dim = f.need("clip_dim");
  c.clip_dim = clip_dim.is_null() ? 0 : clip_dim.integer(1, kMost);
  c.clip_tokens = size(f, "clip_tokens", 0);
  c.local_attn_size = size(f, "local_attn_size");
  if (f.need("patch_size").integers(3) != std::vector<int64_t>{1, 2, 2}) f.fail("patch_size: wanted [1, 2, 2]");
  for (const char* flag : {"qk_norm", "cross_attn_norm"})
    if (!f.need(flag).boolean()) f.fail(std::string(flag) + ": wanted true, no released model is without");
  f.finish();

  if (c.dim % c.num_heads || c.head_dim() % 2) f.fail("dim must be num_heads times an even head_dim");
  if (c.freq_dim % 2) f.fail("freq_dim must be even");
  if (!(c.eps > 0.0 && c.eps < 1.0)) f.fail("eps must lie between 0 and 1");
  if ((c.clip_dim == 0) != (c.clip_tokens == 0)) f.fail("clip_dim and clip_tokens contradict each other");
  if (c.cond_channels() < 0 || (!c.concat_first_frame_latent && c.in_dim != c.out_dim))
    f.fail("in_dim, out_dim and concat_first_frame_latent contradict each other");
  if ((c.model_type == "i2v") != c.concat_first_frame_latent)
    f.fail("model_type i2v needs concat_first_frame_latent, ti2v excludes it");
  if (c.num_action_per_block % c.num_state_per_block)
    f.fail("num_action_per_block must be a multiple of num_state_per_block");
  if (c.local_attn_size < 1 + c.num_frame_per_block) f.fail("local_attn_size must hold a first frame and one block");
  return c;
}

namespace {

SampleConfig read_sample(json::Fields& f) {
  SampleConfig s;
  s.steps = static_cast<int>(f.need("num_inference_steps").integer(1, 1000));
  s.shift = f.need("sigma_shift").number();
  const json::Node solver = f.need("solver");
  solver.choice({"unipc", "euler"});
  s.solver = solver.string();
  s.guidance = f.need("cfg_scale").number();
  const json::Node mask = f.need("dit_step_mask");
  if (!mask.is_null())
    for (const json::Node& step : mask.array()) s.step_mask.push_back(step.boolean());
  if (!s.step_mask.empty() && !s.step_mask[0]) mask.fail("the first step must run");
  s.dynamic_skip = f.need("dynamic_cache_schedule").boolean();
  s.decoupled = f.need("decouple_inference_noise").boolean();
  s.video_final_noise = f.need("video_inference_final_noise").number();
  s.seed = static_cast<uint64_t>(f.need("seed").integer(0));
  return s;
}

void check(const DreamZeroConfig& c, const json::Fields& f) {
  if (c.dit.has_clip() != c.clip.has_value())
    f.fail("image_encoder_cfg and diffusion_model_cfg.clip_dim contradict each other");
  if (c.dit.text_dim != c.text.dim)
    f.fail("text_encoder_cfg.dim and diffusion_model_cfg.text_dim contradict each other");
  if (c.dit.out_dim != c.vae.z_dim) f.fail("vae_cfg.z_dim and diffusion_model_cfg.out_dim contradict each other");
  if (c.dit.num_action_per_block != c.action_horizon || c.dit.action_dim != c.action_dim)
    f.fail("action_horizon and action_dim contradict diffusion_model_cfg");
  if (c.dit.cond_channels() && c.dit.cond_channels() != 4 + c.vae.z_dim)
    f.fail("conditioning channels must be 4 mask channels and the latents");
  const int64_t window = 1 + (c.num_frames - 1) / c.vae.temporal_stride();
  if (c.dit.cond_channels() && window < c.dit.num_frame_per_block)
    f.fail("num_frames makes fewer latent frames than a block has");
}

}  // namespace

DreamZeroConfig DreamZeroConfig::read(const std::string& path) {
  const json::Value document = json::read(path);
  json::Fields top = json::Node(document, "config").fields();
  DreamZeroConfig c;
  top.need("model_type").choice({"dreamzero"});
  c.action_horizon = top.need("action_horizon").integer(1, kMost);
  c.action_dim = top.need("action_dim").integer(1, kMost);
  top.ignore({"backbone_cfg"});
  json::Fields head = top.need("action_head_cfg").fields();
  head.ignore({"_target_"});
  json::Fields f = head.need("config").fields();
  c.dit = read_dit_config(f.need("diffusion_model_cfg"));
  c.text = TextEncoderConfig::parse(f.need("text_encoder_cfg"));
  const json::Node clip = f.need("image_encoder_cfg");
  if (!clip.is_null()) c.clip = ClipConfig::parse(clip);
  c.vae = VaeConfig::parse(f.need("vae_cfg"));
  c.sample = read_sample(f);
  c.num_frames = f.need("num_frames").integer(1, kMost);
  // Not a field of the release: a checkpoint that was trained for real-time chunking says so by it.
  if (const auto rows = f.find("trained_prefix_rows")) c.dit.trained_prefix = rows->integer(0, c.action_horizon - 1);
  const std::vector<json::Node> target = f.need("target_video_hw").array(2);
  if (target[0].is_null() != target[1].is_null()) f.fail("target_video_hw: wanted two sizes or two nulls");
  if (!target[0].is_null()) c.target_height = target[0].integer(1, 8192), c.target_width = target[1].integer(1, 8192);
  f.finish();
  head.finish();
  top.finish();
  check(c, f);
  return c;
}

}  // namespace wam
