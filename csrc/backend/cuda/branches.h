#pragma once

#include "backend/cuda/lowering.h"

namespace wam::cuda {

/// One pass of both guidance branches, made of the lists of each: calls that do the same to neighbouring rows become
/// one call over the rows of both, so that a product reads its weights once and attention has twice the tiles to hand
/// out; others stay two. The lists must come from the same plan, over arrays that lie beside each other (Site).
std::vector<Call> both_branches(const std::vector<Call>& conditional, const std::vector<Call>& unconditional);

/// Fills the tables of live rows for such a pass: the branches' memories hold the same frames, so what follows a
/// table's groups is those groups again.
void fill_live_twice(const Plan& plan, const MemoryView* memory, kc::LiveRows* tables);

}  // namespace wam::cuda
