// Typed errors and checks.  A message reads: name must <rule>, got <value> (<context>); <remedy>.
// Core code throws these; it never prints and never aborts.  bind/ maps each type to a Python exception.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace gramcore {

// Bad argument -> ValueError.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
// Wrong dtype, rank or device of an argument -> TypeError.
struct TypeMismatch : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
// Index or id outside its range -> IndexError.
struct OutOfRange : std::out_of_range {
  using std::out_of_range::out_of_range;
};
// A file or buffer that is not what it claims to be -> gramcore.FormatError (a ValueError).
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// An operating-system call failed -> OSError.
struct IoError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A stated budget of memory, time or size was exceeded -> gramcore.LimitError.
struct LimitError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The CUDA runtime reported an error, or there is no device -> gramcore.CudaError.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {
inline void append(std::ostringstream&) {}
template <class First, class... Rest>
void append(std::ostringstream& out, const First& first, const Rest&... rest) {
  out << first;
  append(out, rest...);
}
}  // namespace detail

template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  detail::append(out, parts...);
  return out.str();
}

}  // namespace gramcore

// Checks an argument:  GC_CHECK(rank > 0, "rank must be >= 1, got ", rank, " (weight ", m, "x", n, ")").
#define GC_CHECK(condition, ...) GC_CHECK_AS(::gramcore::InvalidArgument, condition, __VA_ARGS__)

// The same with the error type named:  GC_CHECK_AS(FormatError, magic == kMagic, path, ": not an index").
#define GC_CHECK_AS(Error, condition, ...)       \
  do {                                           \
    if (!(condition)) [[unlikely]] {             \
      throw Error(::gramcore::cat(__VA_ARGS__)); \
    }                                            \
  } while (false)

// Guards our own logic; compiled only with GRAMCORE_DEBUG (sanitizer and test builds).
#ifdef GRAMCORE_DEBUG
#define GC_DCHECK(condition)                                                              \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      throw std::logic_error(::gramcore::cat(__FILE__, ":", __LINE__, ": ", #condition)); \
    }                                                                                     \
  } while (false)
#else
#define GC_DCHECK(condition) static_cast<void>(0)
#endif
