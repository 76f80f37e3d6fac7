// From the numbers a user gives to the coefficients a rule reads, once per tensor and step, in fp64.
#include <cmath>

#include "core/check.h"
#include "optim/engine.h"

namespace gramcore::optim {
namespace {

struct RuleInfo {
  const char* name;
  int slots;
};
constexpr RuleInfo kRuleInfo[kNumRules] = {{"adam", 2},         {"grams", 2},  {"lion", 1}, {"sgd", 0},
                                           {"sgd_momentum", 1}, {"sophia", 2}, {"sign", 0}};

// c[5..9] of the Adam family; c[4] is 1 - beta1.
void adam_coefs(const Hyper& h, double step, double* c) {
  const double bias1 = h.correct_bias ? 1.0 - std::pow(h.beta1, step) : 1.0;
  const double bias2 = h.correct_bias ? 1.0 - std::pow(h.beta2, step) : 1.0;
  c[4] = 1.0 - h.beta1;
  c[5] = h.beta2;
  c[6] = 1.0 - h.beta2;
  c[7] = h.lr / bias1;
  c[8] = 1.0 / std::sqrt(bias2);
  c[9] = h.raw_eps ? h.eps / std::sqrt(bias2) : h.eps;
}

}  // namespace

RuleId parse_rule(const std::string& name) {
  std::string known;
  for (int i = 0; i < kNumRules; ++i) {
    if (name == kRuleInfo[i].name) return static_cast<RuleId>(i);
    known += (i ? ", " : "") + std::string(kRuleInfo[i].name);
  }
  throw InvalidArgument(cat("rule must be one of ", known, ", got '", name, "'"));
}

int rule_slots(RuleId rule) {
  return kRuleInfo[rule].slots;
}

bool slot_is_signed(int slot) {
  return slot == 0;
}

void rule_coefs(RuleId rule, const Hyper& h, std::int64_t step, float* out) {
  double c[kMaxCoefs] = {};
  const double shrink = h.coupled_decay ? 0.0 : -h.lr * h.weight_decay;
  c[0] = h.maximize ? -h.grad_scale : h.grad_scale;
  c[1] = h.decay_after ? 0.0 : shrink;
  c[2] = h.decay_after ? shrink : 0.0;
  c[3] = h.coupled_decay ? h.weight_decay : 0.0;
  c[7] = h.lr;
  switch (rule) {
    case kAdam:
    case kGrams: adam_coefs(h, static_cast<double>(step), c); break;
    case kLion:
      c[4] = 1.0 - h.beta1;
      c[5] = 1.0 - h.beta2;
      break;
    case kSgd:
    case kSign: break;
    case kSgdMomentum: {  // extra: dampening, Nesterov; the first buffer is the gradient itself
      const bool nesterov = h.extra[1] != 0;
      c[4] = h.beta1;
      c[5] = step == 1 ? 1.0 : 1.0 - h.extra[0];
      c[6] = nesterov ? h.beta1 : 1.0;
      c[8] = nesterov ? 1.0 : 0.0;
      break;
    }
    case kSophia:  // extra: gamma, the multiple of the curvature
      c[4] = 1.0 - h.beta1;
      c[5] = h.extra[0];
      c[6] = h.eps;
      break;
    case kNumRules: break;
  }
  c[7] *= h.update_scale;
  for (int i = 0; i < kMaxCoefs; ++i) out[i] = static_cast<float>(c[i]);
}

}  // namespace gramcore::optim
