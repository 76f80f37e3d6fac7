// Files: read-only memory maps and writes that are either whole or absent (temp file, fsync, rename).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/span.h"

namespace gramcore {

// How pages will be read; a hint for the kernel.
enum class Access { normal, sequential, random, will_need };

class MappedFile {
 public:
  MappedFile() = default;
  // Maps the whole file read-only. Throws IoError (missing, unreadable). An empty file gives an empty span.
  explicit MappedFile(const std::string& path, Access access = Access::normal);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::size_t size() const { return size_; }
  Span<const unsigned char> bytes() const { return {data_, size_}; }
  void advise(Access access) const;
  // Copies the file into memory of its own, on huge pages where the system grants them, and lets go of the map: no
  // later read faults, and random reads miss less in the page tables.  Pointers into bytes() from before are gone.
  void load();

 private:
  std::string path_;
  const unsigned char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Writes `path` atomically: data goes to a sibling temp file; commit() syncs and renames it into place.
// Without commit() (an exception, say) the temp file is removed and `path` is untouched.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(const void* data, std::size_t num_bytes);
  template <class T>
  void write(Span<T> values) {
    write(values.data(), values.size() * sizeof(T));
  }
  std::uint64_t bytes_written() const { return written_ + used_; }
  // Writes at a place of its own, whatever write() does; by several threads at once.
  void write_at(std::uint64_t offset, const void* data, std::size_t num_bytes) const;
  void commit();

 private:
  void flush();
  std::string path_, temp_path_;
  int fd_ = -1;
  std::uint64_t written_ = 0;
  std::size_t used_ = 0;
  std::vector<unsigned char> buffer_;
};

std::uint64_t free_disk_bytes(const std::string& directory);

}  // namespace gramcore
