// wamcore._kernels: single operations on arrays of any library that speaks DLPack, for tests and measurements. Every
// operation exists twice: as a method of Ops, run by a device, and as a function *_ref, its definition in float64.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "backend/backend.h"
#include "backend/kernel_table.h"
#include "cuda_calls.h"
#include "kernel_arrays.h"

namespace wam::bindings {
namespace {

using namespace nb::literals;

class DeviceOps {
 public:
  DeviceOps(const std::string& device, std::optional<int> threads) : backend_(make_backend(device, threads)) {}
  Ops& ops() { return backend_->ops(); }
  int threads() const { return backend_->threads(); }

 private:
  std::shared_ptr<Backend> backend_;
};

// The functions below check one call's arguments, which are Python's keyword arguments, and make kernel parameters.

struct AttentionCall {
  kernels::AttentionParams p;
  std::vector<kernels::KeySpan> spans;  // p.spans points into it; moving keeps that true
  operator const kernels::AttentionParams&() const { return p; }
};

AttentionCall attention(const In<3>& q, const std::vector<std::pair<In<3>, In<3>>>& spans, const Out<3>& out,
                        float scale, bool accumulate, const OptionalIn<3>& bias) {
  const Call call("attention");
  const int64_t rows = q.shape(0), heads = q.shape(1), d = q.shape(2);
  if (d < 1 || d > kernels::kMaxHeadDim)
    call.fail("head_dim must be 1 to " + std::to_string(kernels::kMaxHeadDim) + ", got " + std::to_string(d));
  AttentionCall made;
  int64_t keys = 0;
  for (const auto& [k, v] : spans) {
    const int64_t n = k.shape(0);
    call.shape("k of a span", k, {n, heads, d});
    call.shape("v of a span", v, {n, heads, d});
    made.spans.push_back({k.data(), v.data(), n, call.stride("k of a span", k), call.stride("v of a span", v)});
    keys += n;
  }
  if (keys == 0) call.fail("spans must hold at least one key");
  call.shape("out", out, {rows, heads, d});
  auto& p = made.p = {.q = q.data(), .out = out.data(), .rows = rows, .heads = heads, .head_dim = d};
  p.ldq = call.stride("q", q), p.ldo = call.stride("out", out, true);
  p.spans = made.spans.data(), p.span_count = int64_t(made.spans.size());
  p.scale = scale, p.accumulate = accumulate;
  if (bias) {
    call.shape("bias", *bias, {heads, rows, keys});
    call.contiguous("bias", *bias);
    p.bias = bias->data();
  }
  return made;
}

kernels::Activation activation_of(const std::string& name) {
  constexpr const char* kNames[] = {"none", "gelu_tanh", "gelu_erf", "silu", "relu"};
  for (int i = 0; i < 5; ++i)
    if (name == kNames[i]) return kernels::Activation(i);
  throw InputError("gemm: activation must be none, gelu_tanh, gelu_erf, silu or relu, got '" + name + "'");
}

kernels::GemmParams gemm(const In<2>& x, const In<3>& w, const Out<2>& y, const OptionalIn<1>& bias,
                         const std::string& activation, const OptionalIn<2>& residual, const OptionalIn<2>& gate,
                         const std::optional<Rows>& gate_row) {
  const Call call("gemm");
  const int64_t m = x.shape(0), k = x.shape(1), n = y.shape(1), panel = kernels::kPanel;
  call.shape("w", w, {(n + panel - 1) / panel, k, panel});
  call.contiguous("w", w);
  call.shape("y", y, {m, n});
  kernels::GemmParams p{.x = x.data(), .w = w.data(), .y = y.data(), .m = m, .n = n, .k = k};
  p.ldx = call.stride("x", x), p.ldy = call.stride("y", y, true);
  p.bias = call.vector("bias", bias, n);
  p.activation = activation_of(activation);
  if (residual) {
    call.shape("residual", *residual, {m, n});
    p.residual = residual->data(), p.ldr = call.stride("residual", *residual);
  }
  if (gate_row && !gate) call.fail("gate_row needs gate");
  if (gate) {
    const int64_t rows = std::max<int64_t>(int64_t(gate->shape(0)), 1);
    call.shape("gate", *gate, {rows, n});
    p.gate = gate->data(), p.ldg = call.stride("gate", *gate);
    p.gate_row = call.indices("gate_row", gate_row, m, rows);
  }
  return p;
}

kernels::LayerNormParams layer_norm(const In<2>& x, const Out<2>& y, float eps, const OptionalIn<1>& weight,
                                    const OptionalIn<1>& bias, const OptionalIn<2>& shift, const OptionalIn<2>& scale,
                                    const std::optional<Rows>& time_row) {
  const Call call("layer_norm");
  const int64_t rows = x.shape(0), cols = x.shape(1);
  call.shape("y", y, {rows, cols});
  kernels::LayerNormParams p{.x = x.data(), .y = y.data(), .rows = rows, .cols = cols};
  p.ldx = call.stride("x", x), p.ldy = call.stride("y", y, true), p.eps = eps;
  if (weight.has_value() != bias.has_value()) call.fail("weight and bias come together");
  if (shift.has_value() != scale.has_value()) call.fail("shift and scale come together");
  if (time_row && !shift) call.fail("time_row needs shift and scale");
  p.weight = call.vector("weight", weight, cols);
  p.bias = call.vector("bias", bias, cols);
  if (shift) {
    const int64_t times = std::max<int64_t>(int64_t(shift->shape(0)), 1);
    call.shape("shift", *shift, {times, cols});
    call.shape("scale", *scale, {times, cols});
    p.ldm = call.stride("shift", *shift);
    if (p.ldm != call.stride("scale", *scale)) call.fail("shift and scale must have the same row stride");
    p.shift = shift->data(), p.scale = scale->data();
    p.time_row = call.indices("time_row", time_row, rows, times);
  }
  return p;
}

kernels::QkNormRopeParams qk_norm_rope(const In<3>& x, const Out<3>& y, float eps, const OptionalIn<1>& weight,
                                       const OptionalIn<2>& cos, const OptionalIn<2>& sin) {
  const Call call("qk_norm_rope");
  const int64_t rows = x.shape(0), heads = x.shape(1), d = x.shape(2);
  call.shape("y", y, {rows, heads, d});
  kernels::QkNormRopeParams p{.x = x.data(), .y = y.data(), .rows = rows, .heads = heads, .head_dim = d};
  p.ldx = call.stride("x", x), p.ldy = call.stride("y", y, true), p.eps = eps;
  p.weight = call.vector("weight", weight, heads * d);
  if (cos.has_value() != sin.has_value()) call.fail("cos and sin come together");
  if (cos) {
    if (d % 2) call.fail("head_dim must be even to be rotated, got " + std::to_string(d));
    call.shape("cos", *cos, {rows, d / 2});
    call.shape("sin", *sin, {rows, d / 2});
    call.contiguous("cos", *cos);
    call.contiguous("sin", *sin);
    p.cos = cos->data(), p.sin = sin->data();
  }
  return p;
}

nb::ndarray<nb::numpy, float, nb::ndim<3>, nb::c_contig> pack_weight(const In<2>& w) {
  const Call call("pack_weight");
  call.contiguous("w", w);
  const int64_t n = w.shape(0), k = w.shape(1), panel = kernels::kPanel;
  auto* packed = new float[size_t(kernels::packed_size(n, k))];
  const nb::capsule owner(packed, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  kernel_table().pack_weight(w.data(), n, k, packed);
  return {packed, {size_t((n + panel - 1) / panel), size_t(k), size_t(panel)}, owner};
}

/// Binds an operation in both its forms, with one function to check arguments and one list of their names.
template <class Made, class Params, class... Args, class... Names>
void bind_operation(nb::class_<DeviceOps>& device, nb::module_& m, const std::string& name, Made (*make)(Args...),
                    void (Ops::*fast)(const Params&), void (*reference)(const Params&), const char* doc,
                    const Names&... names) {
  device.def(
      name.c_str(),
      [=](DeviceOps& self, Args... args) {
        const Made made = make(args...);
        nb::gil_scoped_release release;
        (self.ops().*fast)(made);
      },
      names..., doc);
  m.def((name + "_ref").c_str(),
        [=](Args... args) {
          const Made made = make(args...);
          nb::gil_scoped_release release;
          reference(made);
        },
        names..., ("The definition of Ops." + name + ", in float64.").c_str());
}

/// Errors of the library become the classes that wamcore._core has registered.
void translate(const std::exception_ptr& thrown, void*) {
  const auto raise = [](const char* type, const std::exception& e) {
    PyErr_SetString(nb::module_::import_("wamcore._core").attr(type).ptr(), e.what());
  };
  try {
    std::rethrow_exception(thrown);
  } catch (const ShapeError& e) {
    raise("ShapeError", e);
  } catch (const InputError& e) {
    raise("InputError", e);
  } catch (const DeviceError& e) {
    raise("DeviceError", e);
  } catch (const Error& e) {
    raise("Error", e);
  }
}

// An array argument is never converted: a copy would be timed with the operation, or swallow its result.
auto array(const char* name) { return nb::arg(name).noconvert(); }
auto optional_array(const char* name) { return nb::arg(name).noconvert() = nb::none(); }

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() =
      "Single operations on float32 arrays in CPU memory (numpy, torch, anything with DLPack). Nothing is converted or "
      "copied: results are written into the array given for them. Axes after the first must be contiguous.";
  nb::register_exception_translator(translate, nullptr);
  const KernelTable& table = kernel_table();

  m.attr("PANEL") = kernels::kPanel;
  m.def("pack_weight", pack_weight, array("w"),
        "Lays a Linear weight [n, k] out for gemm; returns float32 [ceil(n / PANEL), k, PANEL], zero padded.");

  m.def("multiply_adds", table.multiply_adds, "flop"_a, nb::call_guard<nb::gil_scoped_release>(),
        "Runs about `flop` float32 operations in registers on this thread and returns how many: the CPU's best.");

  auto ops = nb::class_<DeviceOps>(m, "Ops", "The operations as one device runs them.");
  ops.def(nb::init<const std::string&, std::optional<int>>(), "device"_a = "cpu", "threads"_a = 1,
          "threads: None means one for each CPU that the process may use.");
  ops.def_prop_ro("threads", &DeviceOps::threads, "Threads that share one operation.");

  bind_operation(ops, m, "attention", attention, &Ops::attention, table.attention_ref,
                 "out = softmax(scale q k^T + bias) v over the keys of all spans together; added to out if accumulate. "
                 "q, out [rows, heads, head_dim]; spans: list of (k, v), each [n, heads, head_dim]; bias [heads, rows, "
                 "keys].",
                 array("q"), array("spans"), array("out"), nb::arg("scale"), nb::arg("accumulate") = false,
                 optional_array("bias"));
  bind_operation(ops, m, "gemm", gemm, &Ops::gemm, table.gemm_ref,
                 "y = residual + gate * activation(x w^T + bias). x [m, k]; w of pack_weight; y, residual [m, n]; bias "
                 "[n]; gate [g, n], of which row i of x takes row gate_row[i] (int32 [m]; else row 0). y may be "
                 "residual, but not x.",
                 array("x"), array("w"), array("y"), optional_array("bias"), nb::arg("activation") = "none",
                 optional_array("residual"), optional_array("gate"), optional_array("gate_row"));
  bind_operation(ops, m, "layer_norm", layer_norm, &Ops::layer_norm, table.layer_norm_ref,
                 "y = (LN(x) * weight + bias) * (1 + scale[t]) + shift[t]. x, y [rows, cols]; weight, bias [cols]; "
                 "shift, scale [times, cols]; t = time_row[row] (int32 [rows]; else 0).",
                 array("x"), array("y"), nb::arg("eps") = 1e-6f, optional_array("weight"), optional_array("bias"),
                 optional_array("shift"), optional_array("scale"), optional_array("time_row"));
  bind_operation(ops, m, "qk_norm_rope", qk_norm_rope, &Ops::qk_norm_rope, table.qk_norm_rope_ref,
                 "y = rope(x / rms(x) * weight), the RMS over all heads. x, y [rows, heads, head_dim]; weight [heads * "
                 "head_dim], absent: no norm; cos, sin [rows, head_dim / 2], absent: no rotation. y may be x.",
                 array("x"), array("y"), nb::arg("eps") = 1e-6f, optional_array("weight"), optional_array("cos"),
                 optional_array("sin"));
  bind_cuda_calls(m);
}

}  // namespace wam::bindings
