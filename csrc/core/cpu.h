// Instruction-set levels, found once from CPUID, and the tables of kernels compiled once per level.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace gramcore {

// Ascending preference.  A level names what its object files may use; see cmake/isa.cmake for the flags.
enum class CpuLevel : int {
  base = 0,
  avx2,         // + FMA, F16C, BMI2
  avx2_vnni,    // + AVX-VNNI
  avx512,       // avx2 + F, BW, DQ, VL, CD
  avx512_vnni,  // + AVX512-VNNI
  avx512_vbmi,  // + VBMI, VBMI2, BITALG, VPOPCNTDQ
  avx512_bf16,  // + BF16
  amx,          // + AMX-TILE, AMX-INT8, AMX-BF16
  dotprod,      // aarch64: v8.2 + dotprod + fp16
  i8mm,         // aarch64: + i8mm, bf16
};
inline constexpr int kNumCpuLevels = 10;

const char* cpu_level_name(CpuLevel level);
CpuLevel parse_cpu_level(const std::string& name);  // throws InvalidArgument naming the known ones

// Levels this machine can run, ascending; the one in use is the highest allowed by set_cpu_level or, before
// that, by the environment variable GRAMCORE_ISA, else the highest the machine has that pays (see cpu.cc).
std::vector<CpuLevel> supported_cpu_levels();
CpuLevel current_cpu_level();
void set_cpu_level(CpuLevel level);  // throws InvalidArgument when the machine lacks it
std::string cpu_model_name();
bool cpu_is_amd();  // AMD or Hygon by CPUID: what an instruction costs may differ from others of the same level

// Bit l set = tables of level l may be used now (the current level and those it contains).
std::uint32_t usable_level_mask();

// One table of function pointers per level at which a kernel was compiled; `get` picks the best usable one.
template <class Table>
class Dispatch {
 public:
  Dispatch(std::initializer_list<std::pair<CpuLevel, const Table*>> entries) {
    for (const auto& [level, table] : entries) tables_[static_cast<std::size_t>(level)] = table;
  }
  const Table& get() const {
    const std::uint32_t usable = usable_level_mask();
    for (int l = kNumCpuLevels - 1; l > 0; --l) {
      if (((usable >> l) & 1u) && tables_[static_cast<std::size_t>(l)]) return *tables_[static_cast<std::size_t>(l)];
    }
    return *tables_[0];
  }

 private:
  std::array<const Table*, kNumCpuLevels> tables_{};
};

}  // namespace gramcore
