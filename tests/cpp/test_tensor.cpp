// Tensors and views: the one size formula, element types, ownership.
#include "check.h"
#include "wamcore/error.h"
#include "wamcore/tensor.h"

using namespace wam;

TEST(sizes_are_checked_once_for_all) {
  CHECK(numel({}) == 1 && numel({2, 3}) == 6 && numel({4, 0, 5}) == 0);
  CHECK(nbytes({2, 3}, DType::f64) == 48 && nbytes({7}, DType::boolean) == 7 && nbytes({3}, DType::bf16) == 6);
  CHECK_THROWS(numel({2, -1}), ShapeError, "[2, -1] has a negative size");
  const int64_t huge = int64_t{1} << 62;
  CHECK_THROWS(numel({huge, 2}), ShapeError, "64 bits");
  CHECK_THROWS(numel({0, huge, huge}), ShapeError, "64 bits");
  CHECK_THROWS(nbytes({huge}, DType::f16), ShapeError, "bytes");
  CHECK_THROWS(Tensor({huge, 4}), ShapeError, "64 bits");
  CHECK_THROWS(dtype_size(DType(99)), ShapeError, "99");
}

TEST(a_new_tensor_is_zero_aligned_and_contiguous) {
  Tensor t({3, 5});
  CHECK(t && t.numel() == 15 && t.nbytes() == 60 && t.dtype() == DType::f32);
  CHECK(reinterpret_cast<uintptr_t>(t.raw()) % 64 == 0);
  for (int i = 0; i < 15; ++i) CHECK(t.data<float>()[i] == 0.0f);
  CHECK(t.dim(0) == 3 && t.dim(-1) == 5);
  CHECK_THROWS(t.dim(2), ShapeError, "no axis 2 in shape [3, 5]");
  CHECK_THROWS(t.dim(-3), ShapeError, "no axis -3");
  CHECK(Tensor(Shape{}).numel() == 1 && Tensor({0}) && !Tensor());
}

TEST(elements_are_read_only_as_what_they_are) {
  Tensor t({4}, DType::f16);
  t.data<Float16>()[3].bits = 0x3c00;
  const TensorView view = t.view();
  CHECK(view.as<Float16>()[3].bits == 0x3c00);
  CHECK_THROWS(t.data<float>(), ShapeError, "wanted elements of f32, got f16");
  CHECK_THROWS(view.as<BFloat16>(), ShapeError, "wanted elements of bf16, got f16");
  CHECK(Tensor({2}, DType::boolean).data<uint8_t>()[1] == 0);
  CHECK_THROWS(Tensor({2}, DType::u8).data<int8_t>(), ShapeError, "got u8");
  alignas(8) const char bytes[12] = {};
  CHECK_THROWS((TensorView{bytes + 1, DType::f32, {2}}.as<float>()), ShapeError, "not aligned");
}

TEST(tensors_move_and_clone_but_never_copy) {
  static_assert(!std::is_copy_constructible_v<Tensor> && std::is_nothrow_move_constructible_v<Tensor>);
  Tensor a({2});
  a.data<float>()[1] = 7;
  Tensor b = a.clone();
  b.data<float>()[1] = 8;
  CHECK(a.data<float>()[1] == 7 && b.data<float>()[1] == 8);
  const Tensor c = std::move(a);
  CHECK(!a && c.data<float>()[1] == 7);  // NOLINT: the moved-from state is what is tested
  CHECK(!Tensor().clone());
}

TEST(shapes_print) {
  CHECK(shape_string({}) == "[]");
  CHECK(shape_string({2, 3}) == "[2, 3]");
}

CHECK_MAIN()
