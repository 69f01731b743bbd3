#include "backend/cuda/branches.h"

#include <algorithm>
#include <optional>

namespace wam::cuda {
namespace {

// Does the second branch's array begin where the first one's `rows` rows end? Arrays that are not there do.
template <class T>
bool follows(const T* first, const T* second, int64_t rows, int64_t stride) {
  return first ? second == first + rows * stride : second == nullptr;
}

// Each pair of calls as one over the rows of both, or nothing if that is not the same. Tables of rows (times,
// rotations) lie twice in a row in a program's constants, so the first branch's serves both.
std::optional<Call> both(kc::LnModulateParams a, const kc::LnModulateParams& b) {
  if (!follows(a.x, b.x, a.rows, a.ldx) || !follows(a.x_wide, b.x_wide, a.rows, a.ldx)) return {};
  if (!follows(a.y_e4m3, b.y_e4m3, a.rows, a.ldy) || !follows(a.y_scale, b.y_scale, a.rows, 1)) return {};
  if (!follows(a.y, b.y, a.rows, a.ldy) || a.shift != b.shift || a.scale != b.scale || a.weight != b.weight) return {};
  a.rows *= 2;
  return a;
}

std::optional<Call> both(kc::QkNormRopeCacheWriteParams a, const kc::QkNormRopeCacheWriteParams& b) {
  if (a.slots) return {};  // the branches' memories are not neighbours
  for (int i = 0; i < a.parts; ++i)
    if (!follows(a.part[i].x, b.part[i].x, a.tokens, a.part[i].ldx) ||
        !follows(a.part[i].y, b.part[i].y, a.tokens, int64_t{a.heads} * a.pitch) ||
        !follows(a.part[i].square, b.part[i].square, a.tokens, a.part[i].ld_square) || a.part[i].cache)
      return {};
  a.tokens *= 2;
  return a;
}

std::optional<Call> both(kc::GemmParams a, const kc::GemmParams& b) {
  if (a.w != b.w || a.gate != b.gate || a.gate_row != b.gate_row || !follows(a.x, b.x, a.m, a.ldx)) return {};
  if (!follows(a.y, b.y, a.m, a.ldy) || !follows(a.residual, b.residual, a.m, a.ldr)) return {};
  for (int i = 0; i < 3; ++i)
    if (!follows(a.part[i], b.part[i], a.m, a.ld_part[i])) return {};
  if (!follows(a.square, b.square, a.m, int64_t{a.normed} * (a.n / a.parts / kc::kSquareStripe))) return {};
  a.m *= 2;
  return a;
}

std::optional<Call> both(kc::Fp8Product a, const kc::Fp8Product& b) {
  const std::optional<Call> gemm = both(a.gemm, b.gemm);
  if (!gemm || a.operands.w != b.operands.w || !follows(a.operands.x, b.operands.x, a.gemm.m, a.operands.ldx) ||
      !follows(a.operands.x_scale, b.operands.x_scale, a.gemm.m, 1))
    return {};
  a.gemm = std::get<kc::GemmParams>(*gemm);
  return a;
}

std::optional<Call> both(kc::QuantizeRowsParams a, const kc::QuantizeRowsParams& b) {
  if (!follows(a.x, b.x, a.rows, a.ldx) || !follows(a.y, b.y, a.rows, a.ldy) || !follows(a.scale, b.scale, a.rows, 1))
    return {};
  a.rows *= 2;
  return a;
}

std::optional<Call> both(kc::GemmPlainParams a, const kc::GemmPlainParams& b) {
  if (a.w != b.w || a.gate != b.gate || a.gate_row != b.gate_row) return {};
  if (!follows(a.x, b.x, a.m, a.ldx) || !follows(a.x_wide, b.x_wide, a.m, a.ldx)) return {};
  if (!follows(a.y, b.y, a.m, a.ldy) || !follows(a.y_wide, b.y_wide, a.m, a.ldy)) return {};
  if (!follows(a.residual, b.residual, a.m, a.ldr)) return {};
  a.m *= 2;
  return a;
}

// The groups of the second branch read keys of their own, at rows of their own.
std::optional<Call> both(kc::AttentionParams a, const kc::AttentionParams& b) {
  const int32_t groups = a.group_count;
  if (2 * groups > kc::kMaxQueryGroups || a.batch != 1 || a.splits != 1 || a.lse || a.live != b.live) return {};
  if (!follows(a.q, b.q, a.rows, a.ldq) || !follows(a.out, b.out, a.rows, a.ldo)) return {};
  for (int32_t i = 0; i < groups; ++i) {
    a.groups[groups + i] = b.groups[i];
    a.groups[groups + i].first_row += a.rows;
  }
  a.group_count *= 2, a.rows *= 2;
  return a;
}

// Patches, actions, state: few rows, where they come from is not twice there.
template <class Other>
std::optional<Call> both(const Other&, const Other&) {
  return {};
}

}  // namespace

std::vector<Call> both_branches(const std::vector<Call>& conditional, const std::vector<Call>& unconditional) {
  std::vector<Call> out;
  for (size_t i = 0; i < conditional.size(); ++i) {
    const Call& other = unconditional.at(i);
    const std::optional<Call> one =
        std::visit([&](const auto& a) { return both(a, std::get<std::decay_t<decltype(a)>>(other)); }, conditional[i]);
    if (one) {
      out.push_back(*one);
    } else {
      out.push_back(conditional[i]);
      out.push_back(other);
    }
  }
  return out;
}

void fill_live_twice(const Plan& plan, const MemoryView* memory, kc::LiveRows* tables) {
  fill_live(plan, memory, tables);
  for (const Node& any : plan.nodes) {
    const auto* n = std::get_if<SelfAttentionNode>(&any);
    if (!n || n->kv_only) continue;
    for (size_t first = 0; first < n->queries.size(); first += kc::kMaxQueryGroups) {
      const size_t groups = std::min<size_t>(kc::kMaxQueryGroups, n->queries.size() - first);
      if (2 * groups <= kc::kMaxQueryGroups)
        std::copy_n(tables, groups * kc::kMaxKeySegments, tables + groups * kc::kMaxKeySegments);
      tables += kc::kMaxQueryGroups * kc::kMaxKeySegments;
    }
  }
}

}  // namespace wam::cuda
