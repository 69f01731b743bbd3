#pragma once

#include <cstdint>
#include <vector>

#include "wamcore/embodiment.h"
#include "wamcore/export.h"
#include "wamcore/kernels/resample.h"
#include "wamcore/observation.h"

namespace wam {

/// Camera frames to the one picture the model was trained on: centre crop, antialiased resize, views put side by side,
/// scaled to [-1, 1], perhaps resized once more. The bytes in between are those that PyTorch computes on a CPU.
class WAMCORE_API ImagePipeline {
 public:
  /// `target_height`, `target_width`: final size of the picture; 0: as composed.
  ImagePipeline(const Embodiment& embodiment, int target_height, int target_width);

  int height() const { return target_[0] ? target_[0] : composed_[0]; }
  int width() const { return target_[1] ? target_[1] : composed_[1]; }

  /// Frames a camera. Throws InputError or ShapeError: unknown, missing or twice the same camera, wrong size, no
  /// frames, or not as many as the others.
  int check(const Observation& obs) const;
  /// Writes [frames, height, width, 3] in [-1, 1]. `obs` must have passed check().
  void run(const Observation& obs, float* out);
  /// Pictures resized so far; those that have the right size already are left alone.
  uint64_t resized() const { return resized_; }
  /// The composed pictures before scaling, uint8 [frames, composed height, composed width, 3].
  const std::vector<uint8_t>& composed() const { return bytes_; }
  int composed_height() const { return composed_[0]; }
  int composed_width() const { return composed_[1]; }

 private:
  struct View {
    std::string name;
    int height = 0, width = 0;  // of the camera
    int top = 0, left = 0, crop_height = 0, crop_width = 0;
    bool as_it_is = false;  // neither cropped nor resized
    kernels::ResampleWeights rows, cols;
  };
  [[noreturn]] void unknown_camera(const std::string& name) const;
  void resize_view(const View& view, const uint8_t* rgb);
  void place(size_t view, uint8_t* picture) const;
  void scale(const uint8_t* picture, float* out);

  std::vector<View> views_;
  std::string composition_;
  int view_[2], composed_[2], target_[2];
  kernels::ResampleWeights target_rows_, target_cols_;
  std::vector<float> source_, wide_, tall_;  // a picture before, half-way through and after a resize
  std::vector<uint8_t> small_, bytes_;
  uint64_t resized_ = 0;
};

}  // namespace wam
