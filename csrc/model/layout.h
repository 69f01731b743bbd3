#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/plan.h"
#include "wamcore/export.h"

namespace wam {

// A forward pass described as typed segments and who looks at whom. All WAM families are fillings of these fields:
// single stream with register tokens, or several experts with joint attention.

enum class Modality : uint8_t { video, action, state };
/// How numbers become tokens.
enum class Entry : uint8_t {
  hidden,      // they already are
  patch,       // 1 x 2 x 2 patches of latents, optionally with conditioning channels
  linear,      // one matrix
  action_mlp,  // three matrices, the timestep's sinusoid joining before the second
  state_mlp,   // two matrices with ReLU
};
/// How tokens become numbers.
enum class Exit : uint8_t {
  none,
  hidden,        // the residual stream as it is
  adaln_linear,  // modulated norm and one matrix, unpatched for video
  linear,
  mlp,  // two matrices with ReLU
};
/// What a pass is run for.
enum class Want : uint8_t {
  head,
  kv,  // only the K/V of every layer: the last layer's attention and feed-forward are skipped
};

/// Positions of tokens for rotary embedding: head_dim is split over the axes.
struct Coords {
  std::vector<int64_t> split;    // sums to head_dim; each even
  std::vector<double> position;  // [tokens, axes]
};

/// Latent frames of a patch segment.
struct Grid {
  int64_t frames = 0, height = 0, width = 0;  // latent positions, before patching
  int64_t tokens() const { return frames * (height / 2) * (width / 2); }
};

struct Segment {
  std::string name;  // unique; external buffers are "<name>.in", "<name>.cond" and "<name>.out"
  Modality modality = Modality::video;
  int expert = 0;
  int64_t tokens = 0;
  Entry entry = Entry::hidden;
  int64_t in_features = 0;    // channels of a patch entry, else columns
  int64_t cond_channels = 0;  // conditioning channels of a patch entry
  Exit exit = Exit::none;
  int64_t out_features = 0;  // channels of an unpatched exit, else columns
  Grid grid;                 // patch entries only
  Coords coords;
  std::vector<int32_t> time_row;  // [tokens] row in the table of distinct timesteps
  bool clean = false;             // carries data rather than noise
  bool store = false;             // its K/V go to memory
};

/// segment x (segment or memory): may the rows of the first look at the second?
class AttendTable {
 public:
  AttendTable() : AttendTable(0) {}
  explicit AttendTable(size_t segments) : n_(segments), look_(segments * (segments + 1), false) {}
  void allow(size_t query, size_t key) { look_[query * (n_ + 1) + key] = true; }
  void allow_memory(size_t query) { allow(query, n_); }
  bool looks(size_t query, size_t key) const { return look_[query * (n_ + 1) + key]; }
  bool looks_at_memory(size_t query) const { return looks(query, n_); }

 private:
  size_t n_;
  std::vector<bool> look_;
};

struct WAMCORE_API Layout {
  std::string name;
  std::vector<Segment> segments;  // segments of one expert lie together
  AttendTable attend;
  int64_t time_rows = 1;  // distinct timesteps
  Want want = Want::head;
  std::vector<int> groups = {0};  // context groups read by cross-attention
  int64_t tokens() const;
  int64_t begin(size_t segment) const;
};

/// The table as spans: neighbouring segments that see the same are one query, neighbouring keys one range. Keys whose
/// segment is stored are read from memory, where the pass has just put them. Throws ShapeError on a bad layout.
std::vector<QuerySpan> compile_attention(const Layout& layout);

/// Rotation of every token of the layout, in order.
RopeTable rope_table(const Layout& layout, int64_t head_dim);

}  // namespace wam
