#include "backend/cuda/program.h"

#include <algorithm>

#include "backend/cuda/lowering.h"
#include "wamcore/error.h"

namespace wam::cuda {
namespace {

constexpr size_t kAlign = 256;
constexpr size_t kBranches = 2;  // constants of rows lie twice in a row: a call may take the rows of both branches

// Which buffers hold float32: what comes from outside or goes there, and everything that has to do with time.
void choose_types(const Plan& plan, Placement& place) {
  const auto wide = [&](BufferId id) {
    if (id != kNone) place.buffers[static_cast<size_t>(id)].wide = true;
  };
  for (size_t i = 0; i < plan.buffers.size(); ++i)
    // rows of tokens that a test gives from outside are the residual stream itself, which is bf16
    place.buffers[i].wide = plan.buffers[i].external;
  for (const Node& any : plan.nodes) {
    if (const auto* n = std::get_if<SinusoidNode>(&any)) wide(n->t), wide(n->out.buffer);
    if (const auto* n = std::get_if<ActivationNode>(&any)) wide(n->in.buffer), wide(n->out.buffer);
    if (const auto* n = std::get_if<ModulationNode>(&any)) wide(n->time.buffer), wide(n->out.buffer);
    if (const auto* n = std::get_if<NormNode>(&any)) wide(n->modulation.buffer);
    if (const auto* n = std::get_if<UnpatchifyNode>(&any)) wide(n->in.buffer);
  }
  for (const Node& any : plan.nodes)
    if (const auto* n = std::get_if<SelfAttentionNode>(&any))
      for (const SelfAttentionPart& part : n->parts) {
        const Placement::Buffer& hidden = place.buffers[static_cast<size_t>(part.hidden.buffer)];
        if (hidden.wide) throw ShapeError("CudaProgram: plan '" + plan.name + "' has its residual stream outside");
      }
}

void find_ends(const Plan& plan, Placement& place) {
  for (size_t i = 0; i < plan.buffers.size(); ++i) place.buffers[i].input = plan.buffers[i].external;
  const auto output = [&](BufferId id) {
    Placement::Buffer& buffer = place.buffers[static_cast<size_t>(id)];
    if (!plan.buffers[static_cast<size_t>(id)].external) return;
    buffer.output = true, buffer.input = false;
  };
  for (const Node& any : plan.nodes) {
    if (const auto* n = std::get_if<LinearNode>(&any)) output(n->out.buffer);
    if (const auto* n = std::get_if<NormNode>(&any)) output(n->out.buffer);
    if (const auto* n = std::get_if<UnpatchifyNode>(&any)) output(n->latents);
  }
}

// Over all numbers of keys that a memory could hold.
int most_splits(const Device& device, const kc::AttentionParams& shape) {
  int most = 1;
  for (int64_t keys = 64; keys <= 32768; keys += 64) most = std::max(most, device.attention_splits(shape, keys));
  return most;
}

}  // namespace

int64_t head_pitch(int64_t head_dim) {
  if (head_dim < 2 || head_dim > 128 || head_dim % 2)
    throw ShapeError("CudaProgram: head_dim must be even and at most 128, got " + std::to_string(head_dim));
  return head_dim <= 64 ? 64 : 128;
}

CudaProgram::CudaProgram(Plan plan, std::shared_ptr<const DeviceWeights> weights)
    : plan_(std::move(plan)), weights_(std::move(weights)) {
  const auto reserve = [](size_t& total, size_t bytes) {
    const size_t offset = total;
    total += (bytes + kAlign - 1) / kAlign * kAlign;
    return offset;
  };
  place_.buffers.resize(plan_.buffers.size());
  choose_types(plan_, place_);
  find_ends(plan_, place_);
  for (size_t i = 0; i < plan_.buffers.size(); ++i)
    place_.buffers[i].offset =
        reserve(place_.bytes, static_cast<size_t>(plan_.buffers[i].rows * plan_.buffers[i].cols) *
                                  (place_.buffers[i].wide ? sizeof(float) : sizeof(bf16)));
  int64_t padded = 0, context = 0, square = 0;  // elements
  int64_t eight = 0, eight_rows = 0;
  const auto quantised_rows = [&](int64_t rows, int64_t cols) {
    if (weights_->precision() == Precision::fp8)
      eight = std::max(eight, rows * cols), eight_rows = std::max(eight_rows, rows);
  };
  kc::AttentionParams attention;  // the largest
  size_t constants = 0;
  const auto keep = [&](const std::vector<int32_t>& rows) {
    if (!rows.empty() && !row_offset_.count(rows))
      row_offset_[rows] = reserve(constants, kBranches * rows.size() * sizeof(int32_t));
  };
  for (const Node& any : plan_.nodes) {
    if (const auto* n = std::get_if<SelfAttentionNode>(&any)) {
      padded = std::max(padded, n->q.rows * n->heads * head_pitch(n->head_dim));
      square = std::max(square, n->q.rows * 2 * (n->heads * n->head_dim / kc::kSquareStripe));
      attention = attention_shape(n->q.rows, n->heads, head_pitch(n->head_dim));
      if (!n->kv_only) place_.live_tables += attention_calls(*n);
      quantised_rows(n->q.rows, n->heads * head_pitch(n->head_dim));
      for (const SelfAttentionPart& part : n->parts)
        keep(part.time_row), quantised_rows(part.hidden.rows, part.hidden.cols);
    }
    if (const auto* n = std::get_if<CrossAttentionNode>(&any)) {
      padded = std::max(padded, n->q.rows * n->heads * head_pitch(n->head_dim));
      square = std::max(square, n->q.rows * (n->heads * n->head_dim / kc::kSquareStripe));
      quantised_rows(n->q.rows, n->heads * head_pitch(n->head_dim)), quantised_rows(n->hidden.rows, n->hidden.cols);
    }
    if (const auto* n = std::get_if<ContextKvNode>(&any)) {
      head_pitch(n->head_dim);  // throws for sizes that no kernel knows
      context = std::max(context, n->in.rows * n->heads * n->head_dim);
      square = std::max(square, n->in.rows * (n->heads * n->head_dim / kc::kSquareStripe));
    }
    if (const auto* n = std::get_if<FeedForwardNode>(&any))
      keep(n->time_row), quantised_rows(n->hidden.rows, n->hidden.cols), quantised_rows(n->up.rows, n->up.cols);
    if (const auto* n = std::get_if<SinusoidNode>(&any)) keep(n->time_row);
    if (const auto* n = std::get_if<NormNode>(&any)) keep(n->time_row);
  }
  const size_t narrow = sizeof(bf16);
  for (size_t* at : {&place_.q, &place_.k, &place_.v, &place_.out})
    *at = reserve(place_.bytes, static_cast<size_t>(padded) * narrow);
  place_.square = reserve(place_.bytes, static_cast<size_t>(square) * sizeof(float));
  place_.eight = reserve(place_.bytes, static_cast<size_t>(eight));
  place_.eight_scale = reserve(place_.bytes, static_cast<size_t>(eight_rows) * sizeof(float));
  if (attention.rows > 0) place_.splits = most_splits(weights_->device(), attention);
  if (place_.splits > 1) {
    const size_t rows = static_cast<size_t>(place_.splits) * static_cast<size_t>(attention.rows * attention.heads);
    place_.split_out = reserve(place_.bytes, rows * static_cast<size_t>(attention.head_dim) * sizeof(float));
    place_.split_lse = reserve(place_.bytes, rows * sizeof(float));
  }
  for (size_t* at : {&place_.raw_k, &place_.raw_v}) *at = reserve(place_.bytes, static_cast<size_t>(context) * narrow);
  place_.live =
      reserve(place_.bytes, place_.live_tables * kc::kMaxQueryGroups * kc::kMaxKeySegments * sizeof(kc::LiveRows));
  place_.slots = reserve(place_.bytes, sizeof(kc::CacheSlots));
  for (const RopeTable& table : plan_.ropes) {
    const size_t cosine = reserve(constants, kBranches * table.cos.size() * sizeof(float));
    rope_offset_.emplace_back(cosine, reserve(constants, kBranches * table.sin.size() * sizeof(float)));
  }
  Device& device = weights_->device();
  constants_ = Block(device, std::max(constants, kAlign));
  const auto put = [&](size_t offset, const auto& values) {
    const size_t bytes = values.size() * sizeof(values[0]);
    for (size_t i = 0; i < kBranches; ++i) device.upload(constants_.as<>(offset + i * bytes), values.data(), bytes);
  };
  for (const auto& [rows, offset] : row_offset_) put(offset, rows);
  for (size_t i = 0; i < plan_.ropes.size(); ++i) {
    put(rope_offset_[i].first, plan_.ropes[i].cos);
    put(rope_offset_[i].second, plan_.ropes[i].sin);
  }
}

const int32_t* CudaProgram::rows(const std::vector<int32_t>& time_row) const {
  return time_row.empty() ? nullptr : constants_.as<int32_t>(row_offset_.at(time_row));
}
const float* CudaProgram::rope(int table, bool sine) const {
  const auto& [cosine, sine_offset] = rope_offset_.at(static_cast<size_t>(table));
  return constants_.as<float>(sine ? sine_offset : cosine);
}

std::vector<Step> CudaProgram::steps(const Bindings& b) const {
  Lowering lowering(*this, b);
  for (size_t i = 0; i < plan_.nodes.size(); ++i)
    std::visit([&](const auto& n) { lowering.node(n, plan_.labels[i]); }, plan_.nodes[i]);
  return lowering.take();
}

// Programs are shared by sessions, each with addresses of its own. Sessions come and go: the list is kept short, and
// what is dropped is made again when it is wanted.
std::shared_ptr<const CudaProgram::Instance> CudaProgram::instance(const Bindings& b) const {
  std::vector<const void*> key = {b.workspace};
  if (b.memory) key.insert(key.end(), b.memory->k.begin(), b.memory->k.end());
  if (b.context)
    for (const ContextView::Group& group : b.context->groups) key.push_back(group.k);
  const std::lock_guard lock(mutex_);
  if (const auto it = instances_.find(key); it != instances_.end()) return it->second;
  constexpr size_t kMost = 32;
  if (instances_.size() >= kMost) instances_.erase(instances_.begin());
  auto made = std::make_shared<Instance>();
  made->steps = steps(b);
  std::vector<Call> calls;
  for (const Step& step : made->steps) {
    calls.push_back(step.call);
    ++made->counts[std::string(kernel_name(step.call))];
  }
  made->recording = weights_->device().record(calls);
  instances_[key] = made;
  return made;
}

void CudaProgram::upload(const Bindings& b) const {
  Device& device = weights_->device();
  std::byte* workspace = reinterpret_cast<std::byte*>(b.workspace);
  for (size_t i = 0; i < plan_.buffers.size(); ++i) {
    const Placement::Buffer& buffer = place_.buffers[i];
    if (!plan_.buffers[i].external || !buffer.input || !b.external[i]) continue;
    device.upload(workspace + buffer.offset, b.external[i],
                  static_cast<size_t>(plan_.buffers[i].rows * plan_.buffers[i].cols) * sizeof(float));
  }
  if (place_.live_tables) {
    std::vector<kc::LiveRows> live(place_.live_tables * kc::kMaxQueryGroups * kc::kMaxKeySegments, {0, 0});
    fill_live(plan_, b.memory, live.data());
    device.upload(workspace + place_.live, live.data(), live.size() * sizeof(kc::LiveRows));
  }
  if (b.memory) {
    const kc::CacheSlots slots = cache_slots(*b.memory);
    device.upload(workspace + place_.slots, &slots, sizeof(slots));
  }
}

void CudaProgram::show(const Step& step, const Tap& tap) const {
  for (const Step::Seen& s : step.seen) {
    const size_t count = static_cast<size_t>((s.rows - 1) * s.stride + s.cols);
    std::vector<float> values(count);
    if (s.wide) {
      weights_->device().download(values.data(), s.data, count * sizeof(float));
    } else {
      std::vector<bf16> narrow(count);
      weights_->device().download(narrow.data(), s.data, count * sizeof(bf16));
      std::transform(narrow.begin(), narrow.end(), values.begin(), [](bf16 v) { return kc::to_float(v); });
    }
    tap(s.label, values.data(), s.rows, s.cols, s.stride);
  }
}

void CudaProgram::run(const Bindings& b) const {
  Device& device = weights_->device();
  const std::shared_ptr<const Instance> mine = instance(b);
  upload(b);
  if (b.tap)
    for (const Step& step : mine->steps) device.launch(step.call), show(step, *b.tap);
  else
    device.replay(*mine->recording);
  device.count(mine->counts);
  for (size_t i = 0; i < plan_.buffers.size(); ++i)
    if (plan_.buffers[i].external && place_.buffers[i].output && b.external[i])
      device.download(b.external[i], reinterpret_cast<std::byte*>(b.workspace) + place_.buffers[i].offset,
                      static_cast<size_t>(plan_.buffers[i].rows * plan_.buffers[i].cols) * sizeof(float));
}

}  // namespace wam::cuda
