// The one step loop of every optimizer: a list of tensors, cut into chunks over the pool, each chunk brought through
// the first-level cache once.  A rule (kernels/rules.h) sees fp32 blocks; storage types are the codecs' business.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"
#include "optim/kernels/rules.h"

namespace gramcore::optim {

// Elements of one staged block; a multiple of every quantisation block.
inline constexpr std::int64_t kBlock = 1024;
// Elements of one unit of parallel work; a multiple of kBlock.
inline constexpr std::int64_t kChunk = 32768;

// q8 and q4 (moments only): codes and one fp32 scale per block, see kernels/blocks.h.  drawn (gradients only): the
// directions of StepOptions::draws, see kernels/gauss.h.  rank1 (second moments of matrices only): 4-bit codes, with
// the largest values of rows and then of columns as scales, see kernels/rank1.h.
enum class Storage : std::uint8_t { none, f32, bf16, f16, q8, q4, rank1, drawn };

struct Slot {
  void* data = nullptr;
  Storage storage = Storage::none;
  float* scales = nullptr;
  std::int64_t cols = 0;   // rank1: columns of the matrix in memory order
  float* fresh = nullptr;  // rank1: the scales after this step; run_step's own
};

struct StepTensor {
  void* param = nullptr;
  void* param_low = nullptr;  // bf16 remainder of a compensated bf16 parameter, or null
  void* grad = nullptr;
  Storage param_storage = Storage::none, grad_storage = Storage::none;
  Slot slot[kMaxSlots];
  // The gradient is multiplied by row[i] * column[j] at element i * cols + j; null is ones.  cols 0: by neither.
  const float* row = nullptr;
  const float* column = nullptr;
  std::int64_t cols = 0;
  std::int64_t numel = 0;
  std::uint32_t id = 0;    // names the tensor's random bits
  std::uint32_t step = 1;  // number of this step, from 1
  float c[kMaxCoefs] = {};
};

// One direction of a zeroth-order step and what multiplies it.
struct Draw {
  std::uint32_t id;
  float amount;
};

struct StepOptions {
  RuleId rule = kAdam;
  bool stochastic = false;  // round bf16 parameters and moments stochastically
  bool zero_grad = false;   // leave zeros in the gradients
  std::uint64_t seed = 0;
  Span<const Draw> draws;  // the gradient of tensors whose grad_storage is drawn: their sum, of `draw_seed`
  std::uint64_t draw_seed = 0;
  float keep = 1.0f;  // share of the elements a direction moves
};

void run_step(Span<StepTensor> tensors, const StepOptions& options);

// Numbers a rule is given by its user.  `extra` are the rule's own (see rule_coefs).
struct Hyper {
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  double extra[2] = {};
  double grad_scale = 1;    // multiplies every gradient: clipping, loss scale
  double update_scale = 1;  // multiplies the update, not the decay
  bool maximize = false;
  bool raw_eps = false;        // eps is added to sqrt(v) before the bias correction
  bool decay_after = false;    // decoupled decay of the updated parameter
  bool coupled_decay = false;  // decay as part of the gradient
  bool correct_bias = true;
};

RuleId parse_rule(const std::string& name);
int rule_slots(RuleId rule);
bool slot_is_signed(int slot);  // the first moment is, the second is >= 0
void rule_coefs(RuleId rule, const Hyper& hyper, std::int64_t step, float* c);

// Sum of squares over the list (fp64); infinite or NaN when an element is.
double sum_squares(Span<const StepTensor> tensors);

}  // namespace gramcore::optim
