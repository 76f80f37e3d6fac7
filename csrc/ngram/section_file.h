// A file of arrays on 64-byte borders behind a lead of 64 bytes: magic, version, size of the rest and a checksum over
// it. Written whole or not at all, read by memory map.  A checksum finds accidents; what a forged file may say is for
// the reader of each array to check.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/span.h"

namespace gramcore::ngram {

inline constexpr std::size_t kSectionAlign = 64;

struct SectionLead {
  char magic[8];
  std::uint32_t version, reserved;
  std::uint64_t body_bytes, checksum;
  std::uint8_t zero[32];
};
static_assert(sizeof(SectionLead) == kSectionAlign);

std::uint64_t section_checksum(Span<const unsigned char> body);  // of a multiple of 8 bytes

class SectionWriter {
 public:
  // The array must stay where it is until save().
  template <class T>
  void add(Span<const T> values) {
    sections_.push_back({reinterpret_cast<const unsigned char*>(values.data()), values.size() * sizeof(T)});
  }
  void save(const std::string& path, const char (&magic)[9], std::uint32_t version) const;

 private:
  std::vector<Span<const unsigned char>> sections_;
};

class SectionReader {
 public:
  // Throws FormatError unless the file is a whole one of that kind; `what` it must hold is said in messages.
  SectionReader(const std::string& path, const char (&magic)[9], std::uint32_t version, const char* what);

  // The next array; valid while the map is.
  template <class T>
  Span<const T> take(std::uint64_t n) {
    static_assert(alignof(T) <= kSectionAlign);
    require(n <= (file_.size() - at_) / sizeof(T), "an array must lie inside the file");
    const Span<const T> found(reinterpret_cast<const T*>(file_.bytes().data() + at_), static_cast<std::size_t>(n));
    at_ += (n * sizeof(T) + kSectionAlign - 1) / kSectionAlign * kSectionAlign;
    return found;
  }
  // Every array was taken; hands over the map.
  MappedFile finish();
  void require(bool holds, const char* rule) const {
    if (!holds) [[unlikely]]
      fail(rule);
  }

 private:
  [[noreturn]] void fail(const char* rule) const;

  MappedFile file_;
  std::uint64_t at_ = sizeof(SectionLead);  // a multiple of kSectionAlign, at most the file's size
};

}  // namespace gramcore::ngram
