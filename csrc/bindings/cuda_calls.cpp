// What wamcore.kernels needs of the compiled side: facts about any array, and the CUDA plugin's kernels by address. The
// arrays were checked in Python (wamcore/kernels.py), the same way for both devices.
#include "cuda_calls.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <mutex>

#include "backend/cuda_kernels.h"
#include "backend/cuda_loader.h"
#include "kernel_arrays.h"

namespace wam::bindings {
namespace {

using namespace nb::literals;
namespace kc = kernels::cuda;
using Address = uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

std::string dtype_name(const nb::dlpack::dtype& t) {
  const std::string bits = std::to_string(t.bits);
  switch (t.code) {
    case 0:
      return "int" + bits;
    case 1:
      return "uint" + bits;
    case 2:
      return "float" + bits;
    case 4:
      return "bfloat" + bits;
    case 10:
      return "float8_e4m3fn";
    default:
      return "dtype(code " + std::to_string(t.code) + ", " + bits + " bits)";
  }
}

/// (device type of DLPack, device, dtype, shape, strides in elements, address, writable), or None for what is no array.
nb::object describe(nb::handle object) {
  nb::ndarray<> writable;
  nb::ndarray<nb::ro> a;
  const bool can_write = nb::try_cast(object, writable, false);
  if (can_write)
    a = nb::ndarray<nb::ro>(writable);
  else if (!nb::try_cast(object, a, false))
    return nb::none();
  nb::list shape, strides;
  for (size_t i = 0; i < a.ndim(); ++i) shape.append(int64_t(a.shape(i))), strides.append(int64_t(a.stride(i)));
  return nb::make_tuple(a.device_type(), a.device_id(), dtype_name(a.dtype()), nb::tuple(shape), nb::tuple(strides),
                        reinterpret_cast<Address>(a.data()), can_write);
}

/// The plugin's kernels for a GPU; the driver is asked once. Throws DeviceError.
const CudaKernels& kernels_for(const std::string& function, int gpu) {
  static std::mutex mutex;
  static std::map<int, const CudaKernels*> usable;
  const std::lock_guard lock(mutex);
  const auto it = usable.find(gpu);
  if (it != usable.end()) return *it->second;
  const CudaState state = cuda_state(gpu);
  if (!state.problem.empty())
    throw DeviceError(function + ": wanted kernels for arrays on cuda:" + std::to_string(gpu) +
                      ", got none: " + state.problem);
  return *(usable[gpu] = state.plugin->kernels);
}

/// One call: where the arrays lie, and the caller's stream.
struct Place {
  int gpu;
  Address stream;
};

template <typename Start>
void launch(const char* function, const Place& place, Start start) {
  const CudaKernels& kernels = kernels_for(function, place.gpu);
  const int error = start(kernels, CudaPlace{place.gpu, at<void>(place.stream)});
  if (error) throw DeviceError(std::string(function) + ": wanted the kernel started, got " + kernels.explain(error));
}

using Segment = std::tuple<Address, Address, int64_t, int32_t>;  // k, v, row stride, rows

void attention(const Place& place, std::pair<Address, int64_t> q, std::pair<Address, int64_t> out, Address lse,
               const std::array<int32_t, 3>& sizes, const std::vector<Segment>& segments, float scale, int splits) {
  kc::AttentionParams p{.q = at<const kc::bf16>(q.first), .out = at<kc::bf16>(out.first), .lse = at<float>(lse)};
  p.ldq = q.second, p.ldo = out.second;
  p.rows = sizes[0], p.heads = sizes[1], p.head_dim = sizes[2];
  p.group_count = 1, p.scale = scale, p.splits = splits;
  kc::QueryGroup& group = p.groups[0];
  group.rows = p.rows, group.segment_count = int32_t(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto& [k, v, ld, rows] = segments[i];
    group.segments[i] = {.k = at<const kc::bf16>(k), .v = at<const kc::bf16>(v), .ld = ld};
    group.segments[i].rows = group.segments[i].buffer_rows = rows;
  }
  launch("attention", place, [&](const CudaKernels& k, const CudaPlace& where) { return k.attention(where, p); });
}

/// Addresses and row strides of a product, by name; what is absent is left out.
using Operands = std::map<std::string, std::pair<Address, int64_t>>;

kc::GemmParams gemm_params(const std::string& epilogue, const std::array<int32_t, 3>& sizes, const Operands& o) {
  const auto pointer = [&](const char* name) { return o.count(name) ? o.at(name).first : Address{0}; };
  const auto stride = [&](const char* name) { return o.count(name) ? o.at(name).second : 0; };
  kc::GemmParams p{.bias = at<const kc::bf16>(pointer("bias")), .y = at<kc::bf16>(pointer("y"))};
  p.epilogue = epilogue == "bias_gelu"       ? kc::GemmEpilogue::bias_gelu
               : epilogue == "gate_residual" ? kc::GemmEpilogue::gate_residual
               : epilogue == "qkv"           ? kc::GemmEpilogue::qkv
                                             : kc::GemmEpilogue::bias;
  constexpr const char* kParts[] = {"q", "k", "v"};
  for (int i = 0; i < 3; ++i) p.part[i] = at<kc::bf16>(pointer(kParts[i])), p.ld_part[i] = stride(kParts[i]);
  p.m = sizes[0], p.n = sizes[1], p.k = sizes[2], p.ldy = stride("y");
  p.gate = at<const float>(pointer("gate")), p.ldg = stride("gate");
  p.gate_row = at<const int32_t>(pointer("gate_row"));
  p.residual = at<const kc::bf16>(pointer("residual")), p.ldr = stride("residual");
  return p;
}

void gemm(const Place& place, const std::string& epilogue, const std::array<int32_t, 3>& sizes, const Operands& o) {
  const char* function = epilogue == "qkv" ? "gemm_qkv" : "gemm";
  kc::GemmParams p = gemm_params(epilogue, sizes, o);
  if (!o.count("x_scale")) {
    p.x = at<const kc::bf16>(o.at("x").first), p.ldx = o.at("x").second;
    p.w = at<const kc::bf16>(o.at("w").first), p.ldw = o.at("w").second;
    launch(function, place, [&](const CudaKernels& k, const CudaPlace& where) { return k.gemm(where, p); });
    return;
  }
  const kc::Fp8Operands fp8{.x = at<const kc::e4m3>(o.at("x").first),
                            .w = at<const kc::e4m3>(o.at("w").first),
                            .x_scale = at<const float>(o.at("x_scale").first),
                            .w_scale = at<const float>(o.at("w_scale").first),
                            .ldx = o.at("x").second,
                            .ldw = o.at("w").second};
  launch(function, place, [&](const CudaKernels& k, const CudaPlace& where) { return k.gemm_fp8(where, p, fp8); });
}

void layer_norm(const Place& place, float eps, const std::array<int32_t, 2>& sizes, const Operands& o) {
  const auto pointer = [&](const char* name) { return o.count(name) ? o.at(name).first : Address{0}; };
  kc::LnModulateParams p{.x = at<const kc::bf16>(pointer("x")), .y = at<kc::bf16>(pointer("y"))};
  p.rows = sizes[0], p.cols = sizes[1], p.eps = eps, p.ldx = o.at("x").second, p.ldy = o.at("y").second;
  p.weight = at<const float>(pointer("weight")), p.bias = at<const float>(pointer("bias"));
  p.shift = at<const float>(pointer("shift")), p.scale = at<const float>(pointer("scale"));
  p.ldm = o.count("shift") ? o.at("shift").second : 0;
  p.time_row = at<const int32_t>(pointer("time_row"));
  if (o.count("y_scale")) {
    p.y = nullptr, p.y_e4m3 = at<kc::e4m3>(pointer("y"));
    p.y_scale = at<float>(pointer("y_scale"));
  }
  launch("layer_norm", place, [&](const CudaKernels& k, const CudaPlace& where) { return k.ln_modulate(where, p); });
}

// (x, its row stride, y, weight, rotated): what happens to queries, keys or values.
using HeadPart = std::tuple<Address, int64_t, Address, Address, bool>;

void qk_norm_rope(const Place& place, float eps, const std::array<int32_t, 3>& sizes,
                  const std::vector<HeadPart>& parts, std::pair<Address, Address> rope) {
  kc::QkNormRopeCacheWriteParams p{.parts = int32_t(parts.size()), .eps = eps};
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [x, ldx, y, weight, rotated] = parts[i];
    p.part[i] = {.x = at<const kc::bf16>(x), .y = at<kc::bf16>(y), .norm = at<const float>(weight)};
    p.part[i].ldx = ldx, p.part[i].rope = rotated;
  }
  p.tokens = sizes[0], p.heads = sizes[1], p.head_dim = p.pitch = sizes[2];
  p.cos = at<const float>(rope.first), p.sin = at<const float>(rope.second);
  launch("qk_norm_rope", place,
         [&](const CudaKernels& k, const CudaPlace& where) { return k.qk_norm_rope_cachewrite(where, p); });
}

void add(const Place& place, Address x, Address y, int64_t count) {
  const kc::AddParams p{.x = at<const kc::bf16>(x), .y = at<kc::bf16>(y), .count = count};
  launch("add", place, [&](const CudaKernels& k, const CudaPlace& where) { return k.add(where, p); });
}

void quantize_rows(const Place& place, const std::array<int32_t, 2>& sizes, const Operands& o) {
  kc::QuantizeRowsParams p{.x = at<const kc::bf16>(o.at("x").first), .y = at<kc::e4m3>(o.at("y").first)};
  p.scale = at<float>(o.at("scale").first);
  p.rows = sizes[0], p.cols = sizes[1], p.ldx = o.at("x").second, p.ldy = o.at("y").second;
  launch("quantize_rows", place,
         [&](const CudaKernels& k, const CudaPlace& where) { return k.quantize_rows(where, p); });
}

/// Addresses of x, conditional, unconditional (or 0), velocity, last, history and coefficients; numbers; guidance.
using Modality = std::tuple<std::array<Address, 7>, int32_t, float>;

static_assert(sizeof(kc::StepCoefficients) == 12 * 4, "COEFFICIENTS of wamcore/kernels.py");

void sampler_step(const Place& place, const std::vector<Modality>& modalities, std::pair<Address, Address> counters,
                  int32_t steps, bool executed) {
  kc::SamplerStepParams p{.executed = executed, .step = at<int32_t>(counters.first)};
  p.ticket = at<uint32_t>(counters.second), p.steps = steps;
  for (size_t i = 0; i < modalities.size(); ++i) {
    const auto& [address, count, guidance] = modalities[i];
    p.modality[i] = {.x = at<float>(address[0]),
                     .conditional = at<const float>(address[1]),
                     .unconditional = at<const float>(address[2]),
                     .velocity = at<float>(address[3]),
                     .last = at<float>(address[4]),
                     .history = at<float>(address[5]),
                     .steps = at<const kc::StepCoefficients>(address[6]),
                     .count = count,
                     .guidance = guidance};
  }
  launch("sampler_step", place, [&](const CudaKernels& k, const CudaPlace& where) { return k.sampler_step(where, p); });
}

/// (tile rows, tile columns, parts of k) of the wgmma kernels.
std::tuple<int, int, int> gemm_choice(int m, int n, int k, int multiprocessors, bool fp8) {
  const kc::GemmChoiceSm90 c =
      fp8 ? kc::gemm_choice_fp8_sm90(m, n, k, multiprocessors) : kc::gemm_choice_bf16_sm90(m, n, k, multiprocessors);
  return {kc::kGemmRowsSm90, kc::kGemmColsSm90[c.tile], c.splits};
}

}  // namespace

void bind_cuda_calls(nb::module_& m) {
  nb::class_<Place>(m, "Place", "Where arrays lie on a GPU, and the stream that the caller's work is on.")
      .def(nb::init<int, Address>(), "gpu"_a, "stream"_a);
  m.def("describe", describe, "array"_a.none(),
        "(device type, device, dtype, shape, strides, address, writable) of an array; None for what is none.");
  m.def("cuda_attention", attention, "place"_a, "q"_a, "out"_a, "lse"_a, "sizes"_a, "segments"_a, "scale"_a, "splits"_a,
        "For wamcore.kernels: attention on a GPU, by addresses that have been checked.");
  m.def("cuda_gemm", gemm, "place"_a, "epilogue"_a, "sizes"_a, "operands"_a,
        "For wamcore.kernels: a product on a GPU, by addresses that have been checked.");
  m.def("cuda_layer_norm", layer_norm, "place"_a, "eps"_a, "sizes"_a, "operands"_a,
        "For wamcore.kernels: ln_modulate on a GPU, by addresses that have been checked.");
  m.def("cuda_qk_norm_rope", qk_norm_rope, "place"_a, "eps"_a, "sizes"_a, "parts"_a, "rope"_a,
        "For wamcore.kernels: qk_norm_rope_cachewrite on a GPU, by addresses that have been checked.");
  m.def("cuda_sampler_step", sampler_step, "place"_a, "modalities"_a, "counters"_a, "steps"_a, "executed"_a,
        "For wamcore.kernels: a solver's step on a GPU, by addresses that have been checked.");
  m.def("cuda_add", add, "place"_a, "x"_a, "y"_a, "count"_a,
        "For wamcore.kernels: y += x on a GPU, by addresses that have been checked.");
  m.def("cuda_quantize_rows", quantize_rows, "place"_a, "sizes"_a, "operands"_a,
        "For wamcore.kernels: rows to e4m3 on a GPU, by addresses that have been checked.");
  m.def(
      "cuda_multiprocessors",
      [](int gpu) {
        const CudaKernels& kernels = kernels_for("multiprocessors", gpu);
        const int count = kernels.multiprocessors(gpu);
        if (count < 0)
          throw DeviceError(std::string("multiprocessors: wanted their number, got ") + kernels.explain(-count));
        return count;
      },
      "gpu"_a, "Multiprocessors of a GPU. Raises DeviceError.");
  m.def("attention_splits", static_cast<int (*)(int, int, int)>(&kc::attention_splits), "blocks"_a, "slots"_a,
        "key_tiles"_a, "Parts into which attention divides its keys so that blocks fill the slots of a GPU.");
  m.def("gemm_choice", gemm_choice, "m"_a, "n"_a, "k"_a, "multiprocessors"_a, "fp8"_a = false,
        "(tile rows, tile columns, parts of k) of the sm_90a product.");
}

}  // namespace wam::bindings
