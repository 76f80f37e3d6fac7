#include "optim/engine.h"

#include <algorithm>
#include <cstring>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "optim/float_spans.h"
#include "optim/kernels/coded.h"
#include "optim/kernels/gauss.h"
#include "optim/kernels/rows.h"
#include "optim/rank1.h"

namespace gramcore::optim {
namespace {

struct Piece {
  std::size_t tensor;
  std::int64_t begin, end;
};

// Pieces of at most kChunk elements, and tasks: runs of pieces of about kChunk elements in all.
struct Plan {
  std::vector<Piece> pieces;
  std::vector<std::size_t> task_begin;  // index of each task's first piece, and the end

  explicit Plan(Span<const StepTensor> tensors) {
    std::int64_t filled = kChunk;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      for (std::int64_t begin = 0; begin < tensors[t].numel; begin += kChunk) {
        const std::int64_t end = std::min(begin + kChunk, tensors[t].numel);
        if (filled + (end - begin) > kChunk) {
          task_begin.push_back(pieces.size());
          filled = 0;
        }
        filled += end - begin;
        pieces.push_back({t, begin, end});
      }
    }
    task_begin.push_back(pieces.size());
  }
  std::int64_t tasks() const { return static_cast<std::int64_t>(task_begin.size()) - 1; }

  template <class F>
  void run(F&& piece_fn) const {
    parallel_chunks(tasks(), [&](std::int64_t task) {
      const auto k = static_cast<std::size_t>(task);
      for (std::size_t i = task_begin[k]; i < task_begin[k + 1]; ++i) piece_fn(pieces[i]);
    });
  }
};

float* at_f32(void* base, std::int64_t i) {
  return static_cast<float*>(base) + i;
}
std::uint16_t* at_u16(void* base, std::int64_t i) {
  return static_cast<std::uint16_t*>(base) + i;
}

void* at(void* base, Storage storage, std::int64_t i) {
  return storage == Storage::f32 ? static_cast<void*>(at_f32(base, i)) : static_cast<void*>(at_u16(base, i));
}

struct Buffers {
  alignas(64) float p[kBlock], g[kBlock], s[kMaxSlots][kBlock];
};

class Stepper {
 public:
  Stepper(Span<StepTensor> tensors, const StepOptions& options)
      : tensors_(tensors),
        options_(options),
        rules_(rules_kernels()),
        coded_(coded_kernels()),
        gauss_(gauss_kernels()),
        rows_(rows_kernels()),
        slots_(rule_slots(options.rule)) {}

  // The largest values of rows and columns that slot k will have after this step, into its `fresh`.
  void measure(const StepTensor& t, int k) const {
    constexpr std::int64_t kTasks = 16;
    const Rank1Scales fresh = scales_of(t.slot[k], t.slot[k].fresh, t.numel);
    const std::int64_t blocks = (t.numel + kBlock - 1) / kBlock, share = (blocks + kTasks - 1) / kTasks;
    std::mutex mutex;
    parallel_chunks((blocks + share - 1) / share, [&](std::int64_t task) {
      const std::int64_t begin = task * share * kBlock, end = std::min(begin + share * kBlock, t.numel);
      Rank1Maxima maxima(rank1_, fresh, begin, end);
      Buffers buffers;
      RuleBlock block{};
      std::memcpy(block.c, t.c, sizeof block.c);
      for (std::int64_t i = begin; i < end; i += kBlock) {
        block.n = std::min(kBlock, end - i);
        load_block(t, i, block, buffers);
        if (block.p != buffers.p) {  // the parameter's own memory
          std::memcpy(buffers.p, block.p, static_cast<std::size_t>(block.n) * sizeof(float));
          block.p = buffers.p;
        }
        rules_.rule[kF32][options_.rule](block);
        maxima.add(buffers.s[k], i, block.n);
      }
      maxima.merge(mutex);
    });
  }

  void run_piece(const Piece& piece) const {
    const StepTensor& t = tensors_[piece.tensor];
    RuleBlock block{};
    std::memcpy(block.c, t.c, sizeof block.c);
    block.key = NoiseKey{options_.seed, t.step, t.id, piece.begin};
    const int form = direct_form(t);
    if (form >= 0) {
      block.p = at(t.param, t.param_storage, piece.begin);
      block.g = at(t.grad, t.grad_storage, piece.begin);
      for (int k = 0; k < slots_; ++k) block.s[k] = at(t.slot[k].data, t.slot[k].storage, piece.begin);
      block.n = piece.end - piece.begin;
      block.prefetch = !cpu_is_amd();  // there the hardware streams them undisturbed, 2 to 16 % faster
      rules_.rule[form][options_.rule](block);
      if (options_.zero_grad) clear_grad(t, piece.begin, block.n);
      return;
    }
    if (const CodedFn step = coded_form(t)) return run_coded(t, piece, step);
    if (const RowStepFn step = row_form(t)) return run_rows(t, piece, step);
    Buffers buffers;
    for (std::int64_t i = piece.begin; i < piece.end; i += kBlock) {
      block.n = std::min(kBlock, piece.end - i);
      run_block(t, i, block, buffers);
    }
  }

 private:
  // The form in which the rule can work on the tensors themselves, or -1.
  int direct_form(const StepTensor& t) const {
    const Storage state = slots_ > 0 ? t.slot[0].storage : t.param_storage;
    bool plain = t.param_storage == t.grad_storage && !t.param_low && t.cols == 0;
    for (int k = 1; k < slots_; ++k) plain = plain && t.slot[k].storage == state;
    if (!plain) return -1;
    if (t.param_storage == Storage::f32 && state == Storage::f32) return kF32;
    if (t.param_storage != Storage::bf16) return -1;
    if (state == Storage::bf16) return options_.stochastic ? kBf16Stochastic : kBf16;
    if (state == Storage::f32) return options_.stochastic ? kBf16F32Stochastic : kBf16F32;
    return -1;
  }

  // The kernel that leaves moments in their codes, or null.
  CodedFn coded_form(const StepTensor& t) const {
    if (slots_ == 0 || t.param_storage != t.grad_storage || t.param_low || t.cols > 0) return nullptr;
    const Storage state = t.slot[0].storage;
    if ((state != Storage::q8 && state != Storage::q4) || (slots_ > 1 && t.slot[1].storage != state)) return nullptr;
    const bool narrow = t.param_storage == Storage::bf16;
    if (!narrow && t.param_storage != Storage::f32) return nullptr;
    const CodedForm form = !narrow ? kCodedF32 : options_.stochastic ? kCodedBf16Stochastic : kCodedBf16;
    return coded_.step[state == Storage::q4][form][options_.rule];
  }

  void run_coded(const StepTensor& t, const Piece& piece, CodedFn step) const {
    CodedBlock block{};
    std::memcpy(block.c, t.c, sizeof block.c);
    block.key = NoiseKey{options_.seed, t.step, t.id, piece.begin};
    block.p = at(t.param, t.param_storage, piece.begin);
    block.g = at(t.grad, t.grad_storage, piece.begin);
    block.n = piece.end - piece.begin;
    const bool wide = t.slot[0].storage == Storage::q8;
    for (int k = 0; k < slots_; ++k) {
      block.codes[k] = static_cast<std::uint8_t*>(t.slot[k].data) + (wide ? piece.begin : piece.begin / 2);
      block.scales[k] = t.slot[k].scales + piece.begin / (wide ? kBlock8 : kBlock4);
    }
    step(block);
    if (options_.zero_grad) clear_grad(t, piece.begin, block.n);
  }

  // The kernel that descends along a gradient scaled by rows and columns, or null.
  RowStepFn row_form(const StepTensor& t) const {
    if (options_.rule != kSgd || t.cols == 0 || t.param_low || t.c[3] != 0.0f) return nullptr;
    const bool wide = t.grad_storage == Storage::f32;
    if (t.param_storage == Storage::f32) return wide ? rows_.descend[kF32] : nullptr;
    if (t.param_storage != Storage::bf16 || (!wide && t.grad_storage != Storage::bf16)) return nullptr;
    if (options_.stochastic) return rows_.descend[wide ? kBf16F32Stochastic : kBf16Stochastic];
    return rows_.descend[wide ? kBf16F32 : kBf16];
  }

  void run_rows(const StepTensor& t, const Piece& piece, RowStepFn step) const {
    each_row(t.cols, piece.begin, piece.end - piece.begin,
             [&](std::int64_t row, std::int64_t j, std::int64_t k, std::int64_t count) {
               const std::int64_t first = piece.begin + k;
               const float factor = t.row ? t.c[7] * t.c[0] * t.row[row] : t.c[7] * t.c[0];
               step({at(t.param, t.param_storage, first), at(t.grad, t.grad_storage, first),
                     t.column ? t.column + j : nullptr, count, factor, t.c[1], t.c[2],
                     NoiseKey{options_.seed, t.step, t.id, first}});
             });
    if (options_.zero_grad) clear_grad(t, piece.begin, piece.end - piece.begin);
  }

  // fp32 arrays for the rule: the tensor's own memory where it is fp32, else buffers.
  void load_block(const StepTensor& t, std::int64_t i, RuleBlock& block, Buffers& buffers) const {
    block.key.element = i;
    block.p = load_param(t, i, block.n, buffers.p);
    block.g = load_grad(t, i, block.n, buffers.g);
    for (int k = 0; k < slots_; ++k) block.s[k] = load_slot(t.slot[k], k, i, t.numel, block.n, buffers.s[k]);
  }

  void run_block(const StepTensor& t, std::int64_t i, RuleBlock& block, Buffers& buffers) const {
    load_block(t, i, block, buffers);
    rules_.rule[kF32][options_.rule](block);
    store_param(t, i, static_cast<float*>(block.p), block);
    for (int k = 0; k < slots_; ++k) store_slot(static_cast<float*>(block.s[k]), t, k, i, block);
    if (options_.zero_grad) clear_grad(t, i, block.n);
  }

  const float* load_grad(const StepTensor& t, std::int64_t i, std::int64_t n, float* buffer) const {
    if (t.cols > 0) return load_scaled(t, i, n, buffer);
    if (t.grad_storage != Storage::drawn) return spans_.load(t.grad, t.grad_storage, i, n, buffer);
    std::memset(buffer, 0, static_cast<std::size_t>(n) * sizeof(float));
    for (const Draw& draw : options_.draws) {
      gauss_.add({options_.draw_seed, draw.id, t.id, i}, draw.amount, options_.keep, buffer, n);
    }
    return buffer;
  }

  // Row by row; a row may begin or end inside the block.
  const float* load_scaled(const StepTensor& t, std::int64_t i, std::int64_t n, float* buffer) const {
    const bool narrow = t.grad_storage == Storage::bf16;  // converted on the way
    const float* const g = narrow ? nullptr : spans_.load(t.grad, t.grad_storage, i, n, buffer);
    std::int64_t row = i / t.cols, j = i % t.cols;
    for (std::int64_t k = 0; k < n;) {
      const std::int64_t part = std::min(n - k, t.cols - j);
      const float* const column = t.column ? t.column + j : nullptr;
      const float factor = t.row ? t.row[row] : 1.0f;
      if (narrow) {
        rows_.scale_bf16(at_u16(t.grad, i + k), column, factor, buffer + k, part);
      } else {
        rows_.scale(g + k, column, factor, buffer + k, part);
      }
      k += part;
      j = 0;
      ++row;
    }
    return buffer;
  }

  const NoiseKey* noise_of(const RuleBlock& block) const { return options_.stochastic ? &block.key : nullptr; }

  static Rank1Scales scales_of(const Slot& slot, float* scales, std::int64_t numel) {
    return {scales, scales + numel / slot.cols, slot.cols};
  }

  float* load_slot(const Slot& slot, int k, std::int64_t i, std::int64_t numel, std::int64_t n, float* buffer) const {
    if (slot.storage != Storage::rank1) return spans_.load_moment(slot, k, i, n, buffer);
    rank1_.load(static_cast<const std::uint8_t*>(slot.data), scales_of(slot, slot.scales, numel), i, buffer, n);
    return buffer;
  }
  void store_slot(float* from, const StepTensor& t, int k, std::int64_t i, const RuleBlock& block) const {
    const Slot& slot = t.slot[k];
    if (slot.storage == Storage::rank1) {
      rank1_.store(from, static_cast<std::uint8_t*>(slot.data), scales_of(slot, slot.fresh, t.numel), i, block.n);
    } else {
      spans_.store_moment(from, slot, k, i, block.n, noise_of(block));
    }
  }

  float* load_param(const StepTensor& t, std::int64_t i, std::int64_t n, float* buffer) const {
    if (t.param_low) return spans_.load_pair(t.param, t.param_low, i, n, buffer);
    return spans_.load(t.param, t.param_storage, i, n, buffer);
  }
  void store_param(const StepTensor& t, std::int64_t i, const float* p, const RuleBlock& block) const {
    if (t.param_low) {
      spans_.store_pair(p, t.param, t.param_low, i, block.n);
    } else {
      spans_.store(p, t.param, t.param_storage, i, block.n, noise_of(block), 0);
    }
  }

  static void clear_grad(const StepTensor& t, std::int64_t i, std::int64_t n) {
    if (t.grad_storage == Storage::drawn) return;
    const std::int64_t width = t.grad_storage == Storage::f32 ? 4 : 2;
    std::memset(static_cast<char*>(t.grad) + i * width, 0, static_cast<std::size_t>(n * width));
  }

  Span<StepTensor> tensors_;
  const StepOptions& options_;
  const FloatSpans spans_;
  const RulesKernels& rules_;
  const CodedKernels& coded_;
  const GaussKernels& gauss_;
  const RowsKernels& rows_;
  const Rank1 rank1_;
  int slots_;
};

std::int64_t scale_count(const StepTensor& t, const Slot& slot) {
  return t.numel / slot.cols + slot.cols;
}

}  // namespace

void run_step(Span<StepTensor> tensors, const StepOptions& options) {
  const Plan plan(tensors);
  const Stepper stepper(tensors, options);
  std::vector<std::vector<float>> fresh;
  for (StepTensor& t : tensors) {
    for (int k = 0; k < rule_slots(options.rule); ++k) {
      Slot& slot = t.slot[k];
      if (slot.storage != Storage::rank1 || t.numel == 0) continue;
      fresh.emplace_back(static_cast<std::size_t>(scale_count(t, slot)));
      slot.fresh = fresh.back().data();
      stepper.measure(t, k);
    }
  }
  plan.run([&](const Piece& piece) { stepper.run_piece(piece); });
  for (StepTensor& t : tensors) {
    for (Slot& slot : t.slot) {
      if (slot.fresh)
        std::memcpy(slot.scales, slot.fresh, static_cast<std::size_t>(scale_count(t, slot)) * sizeof(float));
    }
  }
}

double sum_squares(Span<const StepTensor> tensors) {
  const Plan plan(tensors);
  const FloatSpans spans;
  const RulesKernels& rules = rules_kernels();
  // One partial sum per piece, added in order: the result does not depend on the number of threads.
  std::vector<double> parts(plan.pieces.size());
  plan.run([&](const Piece& piece) {
    const StepTensor& t = tensors[piece.tensor];
    double& part = parts[static_cast<std::size_t>(&piece - plan.pieces.data())];
    if (t.grad_storage == Storage::f32) {  // one run of it all
      part = rules.sum_squares(at_f32(t.grad, piece.begin), piece.end - piece.begin);
      return;
    }
    alignas(64) float buffer[kBlock];
    for (std::int64_t i = piece.begin; i < piece.end; i += kBlock) {
      const std::int64_t n = std::min(kBlock, piece.end - i);
      part += rules.sum_squares(spans.load(t.grad, t.grad_storage, i, n, buffer), n);
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

}  // namespace gramcore::optim
