// Runs every registered case; each `NAME` keeps those whose name contains it, each `-NAME` leaves those out.
#include <cstring>
#include <exception>

#include "native/test.h"

int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const auto& test : gramcore::test::cases()) {
    bool wanted = true;
    for (int i = 1; i < argc; ++i) {
      const bool leave_out = argv[i][0] == '-';
      wanted = wanted && (std::strstr(test.name, argv[i] + leave_out) != nullptr) != leave_out;
    }
    if (!wanted) continue;
    std::string error;
    try {
      test.run();
    } catch (const gramcore::test::Failure& f) {
      error = f.text;
    } catch (const std::exception& e) {
      error = std::string("exception: ") + e.what();
    }
    if (error.empty()) {
      ++passed;
    } else {
      ++failed;
      std::printf("FAILED %s\n  %s\n", test.name, error.c_str());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0 ? 1 : 0;
}
