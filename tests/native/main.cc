// Runs every registered case; `NAME` keeps those whose name contains it, `-NAME` leaves those out.
#include <cstring>
#include <exception>

#include "native/test.h"

int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const auto& test : gramcore::test::cases()) {
    if (argc > 1 && argv[1][0] == '-' && std::strstr(test.name, argv[1] + 1)) continue;
    if (argc > 1 && argv[1][0] != '-' && !std::strstr(test.name, argv[1])) continue;
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
