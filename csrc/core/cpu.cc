#include "core/cpu.h"

#include <cstdlib>
#include <fstream>

#include "core/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace gramcore {
namespace {

constexpr const char* kNames[kNumCpuLevels] = {"base",        "avx2",        "avx2_vnni", "avx512",  "avx512_vnni",
                                               "avx512_vbmi", "avx512_bf16", "amx",       "dotprod", "i8mm"};

constexpr std::uint32_t bit(CpuLevel level) {
  return 1u << static_cast<int>(level);
}

#if defined(__x86_64__)

struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

bool has(unsigned reg, std::initializer_list<int> positions) {
  for (int p : positions) {
    if (!((reg >> p) & 1u)) return false;
  }
  return true;
}

// Linux grants AMX tile state per process on request.
bool request_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureXtiledata = 18;
  return ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
#else
  return false;
#endif
}

std::uint32_t detect() {
  std::uint32_t mask = bit(CpuLevel::base);
  const Cpuid one(1, 0), seven(7, 0), seven_one(7, 1), extended(0x80000001u, 0);
  if (!has(one.ecx, {27})) return mask;  // OSXSAVE: the system saves wide registers
  unsigned xcr0 = 0, xcr0_hi = 0;
  asm volatile("xgetbv" : "=a"(xcr0), "=d"(xcr0_hi) : "c"(0));
  const bool ymm = (xcr0 & 0x6u) == 0x6u, zmm = (xcr0 & 0xe6u) == 0xe6u, tiles = (xcr0 & 0x60000u) == 0x60000u;
  // FMA, SSE4.2, MOVBE, POPCNT, AVX, F16C; LZCNT; BMI1, AVX2, BMI2
  const bool avx2 =
      ymm && has(one.ecx, {12, 20, 22, 23, 28, 29}) && has(extended.ecx, {5}) && has(seven.ebx, {3, 5, 8});
  if (!avx2) return mask;
  mask |= bit(CpuLevel::avx2);
  if (has(seven_one.eax, {4})) mask |= bit(CpuLevel::avx2_vnni);
  if (!(zmm && has(seven.ebx, {16, 17, 28, 30, 31}))) return mask;  // F, DQ, CD, BW, VL
  mask |= bit(CpuLevel::avx512);
  if (!has(seven.ecx, {11})) return mask;
  mask |= bit(CpuLevel::avx512_vnni);
  if (!has(seven.ecx, {1, 6, 12, 14})) return mask;  // VBMI, VBMI2, BITALG, VPOPCNTDQ
  mask |= bit(CpuLevel::avx512_vbmi);
  if (!has(seven_one.eax, {5})) return mask;
  mask |= bit(CpuLevel::avx512_bf16);
  if (tiles && has(seven.edx, {22, 24, 25}) && request_amx()) mask |= bit(CpuLevel::amx);
  return mask;
}

#elif defined(__aarch64__) && defined(__linux__)

std::uint32_t detect() {
  std::uint32_t mask = bit(CpuLevel::base);
  const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
  const bool dotprod = (hwcap >> 20) & 1u, fp16 = (hwcap >> 10) & 1u;
  const bool i8mm = (hwcap2 >> 13) & 1u, bf16 = (hwcap2 >> 14) & 1u;
  if (dotprod && fp16) mask |= bit(CpuLevel::dotprod);
  if (dotprod && fp16 && i8mm && bf16) mask |= bit(CpuLevel::i8mm);
  return mask;
}

#else
std::uint32_t detect() {
  return bit(CpuLevel::base);
}
#endif

std::uint32_t supported_mask() {
  static const std::uint32_t mask = detect();
  return mask;
}

// Levels whose object files use only instructions that `level` promises.
std::uint32_t contained(CpuLevel level) {
  switch (level) {
    case CpuLevel::base: return bit(CpuLevel::base);
    case CpuLevel::avx2: return contained(CpuLevel::base) | bit(CpuLevel::avx2);
    case CpuLevel::avx2_vnni: return contained(CpuLevel::avx2) | bit(CpuLevel::avx2_vnni);
    case CpuLevel::avx512: return contained(CpuLevel::avx2) | bit(CpuLevel::avx512);
    case CpuLevel::avx512_vnni: return contained(CpuLevel::avx512) | bit(CpuLevel::avx512_vnni);
    case CpuLevel::avx512_vbmi: return contained(CpuLevel::avx512_vnni) | bit(CpuLevel::avx512_vbmi);
    case CpuLevel::avx512_bf16: return contained(CpuLevel::avx512_vbmi) | bit(CpuLevel::avx512_bf16);
    case CpuLevel::amx: return contained(CpuLevel::avx512_bf16) | bit(CpuLevel::amx);
    case CpuLevel::dotprod: return contained(CpuLevel::base) | bit(CpuLevel::dotprod);
    case CpuLevel::i8mm: return contained(CpuLevel::dotprod) | bit(CpuLevel::i8mm);
  }
  return bit(CpuLevel::base);
}

bool vendor_is_amd() {
#if defined(__x86_64__)
  const Cpuid vendor(0, 0);
  return vendor.ecx == 0x444d4163u || vendor.ecx == 0x656e6975u;  // "cAMD" of AuthenticAMD, "uine" of HygonGenuine
#else
  return false;
#endif
}

CpuLevel highest(std::uint32_t mask) {
  return static_cast<CpuLevel>(31 - __builtin_clz(mask));
}

std::string supported_names() {
  std::string names;
  for (CpuLevel level : supported_cpu_levels())
    names += (names.empty() ? "" : ", ") + std::string(cpu_level_name(level));
  return names;
}

void check_supported(CpuLevel level, const char* who) {
  GC_CHECK(supported_mask() & bit(level), who, " must be a level of this machine, got ", cpu_level_name(level),
           "; it has: ", supported_names());
}

CpuLevel initial_level() {
  const char* wanted = std::getenv("GRAMCORE_ISA");
  if (!wanted || !*wanted) {
    // Outside AMD's processors dot products of bf16 pairs do fewer operations per second than fp32 products (89 against
    // 182 GFLOP/s on a core of a Xeon): without tiles fp32 is the quicker way.
    const std::uint32_t passed_over =
        highest(supported_mask()) == CpuLevel::avx512_bf16 && !vendor_is_amd() ? bit(CpuLevel::avx512_bf16) : 0u;
    return highest(supported_mask() & ~passed_over);
  }
  const CpuLevel level = parse_cpu_level(wanted);
  check_supported(level, "GRAMCORE_ISA");
  return level;
}

std::atomic<int>& level_slot() {
  static std::atomic<int> slot{static_cast<int>(initial_level())};
  return slot;
}

}  // namespace

const char* cpu_level_name(CpuLevel level) {
  return kNames[static_cast<int>(level)];
}

CpuLevel parse_cpu_level(const std::string& name) {
  std::string known;
  for (int l = 0; l < kNumCpuLevels; ++l) {
    if (name == kNames[l]) return static_cast<CpuLevel>(l);
    known += (l ? ", " : "") + std::string(kNames[l]);
  }
  throw InvalidArgument(cat("cpu level must be one of ", known, ", got '", name, "'"));
}

std::vector<CpuLevel> supported_cpu_levels() {
  std::vector<CpuLevel> levels;
  for (int l = 0; l < kNumCpuLevels; ++l) {
    if ((supported_mask() >> l) & 1u) levels.push_back(static_cast<CpuLevel>(l));
  }
  return levels;
}

CpuLevel current_cpu_level() {
  return static_cast<CpuLevel>(level_slot().load(std::memory_order_relaxed));
}

void set_cpu_level(CpuLevel level) {
  check_supported(level, "cpu level");
  level_slot().store(static_cast<int>(level), std::memory_order_relaxed);
}

std::uint32_t usable_level_mask() {
  static const std::array<std::uint32_t, kNumCpuLevels> usable = [] {
    std::array<std::uint32_t, kNumCpuLevels> masks{};
    for (int l = 0; l < kNumCpuLevels; ++l) {
      masks[static_cast<std::size_t>(l)] = contained(static_cast<CpuLevel>(l)) & supported_mask();
    }
    return masks;
  }();
  return usable[static_cast<std::size_t>(current_cpu_level())];
}

bool cpu_is_amd() {
  static const bool amd = vendor_is_amd();
  return amd;
}

std::string cpu_model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0 || line.rfind("CPU part", 0) == 0) {
      const std::size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
    }
  }
  return "unknown";
}

}  // namespace gramcore
