// A minimal test framework for the native binary that sanitizers run: no dependency, one macro per need.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "core/check.h"

namespace gramcore::test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

struct Failure {
  std::string text;
};

template <class Error, class F>
bool throws(F&& f, std::string* message = nullptr) {
  try {
    f();
  } catch (const Error& e) {
    if (message) *message = e.what();
    return true;
  }
  return false;
}

}  // namespace gramcore::test

#define GC_TEST(name)                                                          \
  static void test_##name();                                                   \
  static const ::gramcore::test::Register register_##name(#name, test_##name); \
  static void test_##name()

#define EXPECT(condition)                                                                          \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      throw ::gramcore::test::Failure{::gramcore::cat(__FILE__, ":", __LINE__, ": ", #condition)}; \
    }                                                                                              \
  } while (false)

#define EXPECT_EQ(a, b)                                                                                 \
  do {                                                                                                  \
    const auto left_ = (a);                                                                             \
    const auto right_ = (b);                                                                            \
    if (!(left_ == right_)) {                                                                           \
      throw ::gramcore::test::Failure{                                                                  \
          ::gramcore::cat(__FILE__, ":", __LINE__, ": ", #a, " == ", #b, ": ", left_, " vs ", right_)}; \
    }                                                                                                   \
  } while (false)
