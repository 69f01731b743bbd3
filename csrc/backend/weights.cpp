#include "backend/weights.h"

#include "wamcore/error.h"
#include "wamcore/kernels/conv.h"
#include "wamcore/kernels/gemm.h"

namespace wam {

int WeightTable::add(const std::string& name, Shape shape, WeightUse use) {
  const auto [it, fresh] = ids_.try_emplace(name, static_cast<int>(specs_.size()));
  if (fresh) {
    specs_.push_back({name, std::move(shape), use});
  } else {
    const WeightSpec& known = specs_[static_cast<size_t>(it->second)];
    if (known.shape != shape || known.use != use)
      throw WeightError("WeightTable::add: " + name + " is used as " + shape_string(known.shape) + " and as " +
                        shape_string(shape));
  }
  return it->second;
}

void WeightTable::join(std::initializer_list<int> ids) {
  int before = -1;
  for (const int id : ids) {
    if (id < 0) continue;
    WeightSpec& spec = specs_[static_cast<size_t>(id)];
    if (before >= 0 && spec.after != before) spec.after = before;  // plans that are made later write nothing
    before = id;
  }
}

namespace {

Tensor packed_conv(const WeightSpec& spec, const Tensor& raw, uint32_t& live) {
  const Shape& s = spec.shape;
  const size_t at = s.size() - 2;
  const kernels::ConvShape shape{.out = s[0], .in = s[1], .time = at == 3 ? s[2] : 1, .rows = s[at], .cols = s[at + 1]};
  Tensor out({kernels::packed_conv_size(shape)});
  live = kernels::pack_conv(raw.data<float>(), shape, out.data<float>());
  return out;
}

Tensor narrowest(Tensor packed) {
  const int64_t n = packed.numel();
  if (!kernels::is_bf16(packed.data<float>(), n)) return packed;
  Tensor halves({n}, DType::bf16);
  kernels::to_bf16(packed.data<float>(), n, static_cast<uint16_t*>(halves.raw()));
  return halves;
}

// A convolution weight [out, ...] counts as a matrix [out, product of the rest]; category weights [1, in, out] as [in,
// out].
Tensor packed(const WeightSpec& spec, const Tensor& raw) {
  const bool transposed = spec.use == WeightUse::matrix_transposed;
  const int64_t last = spec.shape.back();
  const int64_t n = transposed ? last : spec.shape.front(), k = raw.numel() / n;
  Tensor out({kernels::packed_size(n, k)});
  if (!transposed) {
    kernels::pack_weight(raw.data<float>(), n, k, out.data<float>());
    return out;
  }
  Tensor rows({n, k});
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < n; ++j) rows.data<float>()[j * k + i] = raw.data<float>()[i * n + j];
  kernels::pack_weight(rows.data<float>(), n, k, out.data<float>());
  return out;
}

// What a matrix lacks for being rounded to `kind`.
WeightError unfit(const char* kind, const WeightSpec& spec, const std::string& why) {
  return WeightError(std::string(kind) + ": " + spec.name + " " + shape_string(spec.shape) + why);
}

void check_depth(const char* kind, const WeightSpec& spec, int64_t depth, int64_t most) {
  if (depth > most) throw unfit(kind, spec, ": wanted at most " + std::to_string(most) + " inputs");
}

constexpr const char* kNotFinite = " has an element that is not finite";

// Rounded to bytes, with scales and sums.
Tensor rounded(const WeightSpec& spec, const Tensor& raw) {
  const int64_t n = spec.shape.front(), k = raw.numel() / n;
  check_depth("int8", spec, k, kernels::kMaxInt8Depth);
  Tensor out({kernels::packed_int8_size(n, k)}, DType::i8);
  if (!kernels::pack_weight_int8(raw.data<float>(), n, k, out.raw())) throw unfit("int8", spec, kNotFinite);
  return out;
}

// Rounded to bfloat16, which makes products round their activations too.
Tensor halved(const WeightSpec& spec, const Tensor& raw) {
  const int64_t n = spec.shape.front(), k = raw.numel() / n;
  check_depth("bfloat16", spec, k, kernels::kMaxBf16Depth);
  Tensor out({kernels::packed_bf16_size(n, k)}, DType::bf16);
  if (!kernels::pack_weight_bf16(raw.data<float>(), n, k, static_cast<uint16_t*>(out.raw())))
    throw unfit("bfloat16", spec, kNotFinite);
  return out;
}

Tensor layer_matrix(const WeightSpec& spec, const Tensor& raw, Precision precision) {
  if (precision == Precision::int8) return rounded(spec, raw);
  if (precision == Precision::bfloat16) return halved(spec, raw);
  return narrowest(packed(spec, raw));
}

kernels::Panels panels_of(const WeightSpec& spec, const Tensor& t, Precision precision) {
  if (spec.use == WeightUse::vector || spec.use == WeightUse::conv) return {};
  if (t.dtype() == DType::i8)
    return kernels::int8_panels_of(t.raw(), spec.shape.front(), numel(spec.shape) / spec.shape.front());
  if (precision == Precision::bfloat16 && spec.use == WeightUse::layer_matrix)
    return kernels::bf16_panels_of(static_cast<const uint16_t*>(t.raw()), spec.shape.front(),
                                   numel(spec.shape) / spec.shape.front());
  if (t.dtype() == DType::bf16) return static_cast<const uint16_t*>(t.raw());
  return t.data<float>();
}

}  // namespace

PackedWeights::PackedWeights(const WeightTable& table, const WeightSource& source, Precision precision)
    : precision_(precision) {
  tensors_.reserve(table.specs().size());
  live_taps_.resize(table.specs().size());
  for (const WeightSpec& spec : table.specs()) {
    Tensor raw = source(spec.name, spec.shape);
    switch (spec.use) {
      case WeightUse::vector:
        tensors_.push_back(std::move(raw));
        break;
      case WeightUse::conv:
        tensors_.push_back(packed_conv(spec, raw, live_taps_[tensors_.size()]));
        break;
      case WeightUse::layer_matrix:
        tensors_.push_back(layer_matrix(spec, raw, precision));
        break;
      default:
        tensors_.push_back(narrowest(packed(spec, raw)));
    }
    panels_.push_back(panels_of(spec, tensors_.back(), precision));
  }
}

}  // namespace wam
