#include "ngram/section_file.h"

#include <cstring>

namespace gramcore::ngram {
namespace {

class Checksum {
 public:
  void add(const unsigned char* data, std::size_t bytes) {  // a multiple of 8 unless it is the last of an array
    for (; bytes >= 8; bytes -= 8, data += 8) word(data, 8);
    if (bytes > 0) word(data, bytes);
  }
  std::uint64_t value() const { return state_; }

 private:
  void word(const unsigned char* data, std::size_t bytes) {
    std::uint64_t w = 0;
    std::memcpy(&w, data, bytes);
    state_ = (state_ ^ w) * 0x9e3779b97f4a7c15ull;
    state_ ^= state_ >> 29;
  }
  std::uint64_t state_ = 0xcbf29ce484222325ull;
};

std::size_t padding(std::size_t bytes) {
  return (kSectionAlign - bytes % kSectionAlign) % kSectionAlign;
}

constexpr unsigned char kZeros[kSectionAlign] = {};

}  // namespace

std::uint64_t section_checksum(Span<const unsigned char> body) {
  Checksum sum;
  sum.add(body.data(), body.size());
  return sum.value();
}

void SectionWriter::save(const std::string& path, const char (&magic)[9], std::uint32_t version) const {
  SectionLead lead{};
  std::memcpy(lead.magic, magic, sizeof(lead.magic));
  lead.version = version;
  Checksum sum;
  for (const auto& s : sections_) {
    sum.add(s.data(), s.size());
    sum.add(kZeros, padding(s.size()) / 8 * 8);
    lead.body_bytes += s.size() + padding(s.size());
  }
  lead.checksum = sum.value();
  AtomicFile file(path);
  file.write(&lead, sizeof(lead));
  for (const auto& s : sections_) {
    file.write(s);
    file.write(kZeros, padding(s.size()));
  }
  file.commit();
}

SectionReader::SectionReader(const std::string& path, const char (&magic)[9], std::uint32_t version, const char* what)
    : file_(path) {
  SectionLead lead{};
  GC_CHECK_AS(FormatError, file_.size() >= sizeof(lead), path, ": must hold ", what, ", got ", file_.size(),
              " bytes; write it with save()");
  std::memcpy(&lead, file_.bytes().data(), sizeof(lead));
  GC_CHECK_AS(FormatError, std::memcmp(lead.magic, magic, sizeof(lead.magic)) == 0, path, ": must hold ", what,
              ", got another kind of file");
  GC_CHECK_AS(FormatError, lead.version == version, path, ": format version must be ", version, ", got ", lead.version,
              "; save it again with this version of gramcore");
  const Span<const unsigned char> body = file_.bytes().subspan(sizeof(lead));
  GC_CHECK_AS(FormatError, lead.body_bytes == body.size() && body.size() % kSectionAlign == 0, path, ": must hold ",
              lead.body_bytes, " bytes behind its lead, got ", body.size(), "; the file is truncated or overlong");
  require(lead.reserved == 0 && std::memcmp(lead.zero, kZeros, sizeof(lead.zero)) == 0, "reserved bytes must be 0");
  require(lead.checksum == section_checksum(body), "the checksum must match");
}

MappedFile SectionReader::finish() {
  require(at_ == file_.size(), "nothing must follow the last array");
  return std::move(file_);
}

void SectionReader::fail(const char* rule) const {
  throw FormatError(cat(file_.path(), ": ", rule, "; the file is damaged, save it again"));
}

}  // namespace gramcore::ngram
