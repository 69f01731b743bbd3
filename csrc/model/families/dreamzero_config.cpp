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
  if (c.local_attn_size < 1 + c.num_frame_per_block)
    f.fail("local_attn_size must hold a first frame and one block");
  return c;
}

}  // namespace wam
