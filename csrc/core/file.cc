#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/huge_pages.h"

namespace gramcore {
namespace {

[[noreturn]] void throw_io(const std::string& path, const char* action) {
  throw IoError(cat(path, ": cannot ", action, ": ", std::strerror(errno)));
}

int to_madvise(Access access) {
  switch (access) {
    case Access::sequential: return MADV_SEQUENTIAL;
    case Access::random: return MADV_RANDOM;
    case Access::will_need: return MADV_WILLNEED;
    case Access::normal: break;
  }
  return MADV_NORMAL;
}

}  // namespace

MappedFile::MappedFile(const std::string& path, Access access) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_io(path, "open");
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const bool regular = S_ISREG(info.st_mode);
    ::close(fd);
    throw IoError(cat(path, ": cannot map: ", regular ? std::strerror(errno) : "not a regular file"));
  }
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ > 0) {
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
      ::close(fd);
      throw_io(path, "map");
    }
    data_ = static_cast<const unsigned char*>(mapped);
    advise(access);
  }
  ::close(fd);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<unsigned char*>(data_), size_);
}

void MappedFile::advise(Access access) const {
  if (data_) ::madvise(const_cast<unsigned char*>(data_), size_, to_madvise(access));  // a hint: failure is harmless
}

void MappedFile::load() {
  if (!data_) return;
  const std::size_t align = size_ >= kHugePage ? kHugePage : 1;  // small files need no room to be aligned
  void* mapped = ::mmap(nullptr, size_ + align - 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw_io(path_, "allocate memory for");
  auto* begin = static_cast<unsigned char*>(mapped);
  const std::size_t head = (align - reinterpret_cast<std::uintptr_t>(begin) % align) % align;
  if (head > 0) ::munmap(begin, head);
  begin += head;
  const auto pages = [](std::size_t bytes) { return (bytes + 4095) / 4096 * 4096; };
  const std::size_t tail = pages(size_ + align - 1) - head - pages(size_);
  if (tail > 0) ::munmap(begin + pages(size_), tail);
  advise_huge_pages(begin, size_);
  std::memcpy(begin, data_, size_);
  ::mprotect(begin, size_, PROT_READ);
  ::munmap(const_cast<unsigned char*>(data_), size_);
  data_ = begin;
}

AtomicFile::AtomicFile(const std::string& path)
    : path_(path), temp_path_(cat(path, ".tmp-", static_cast<long>(::getpid()))) {
  fd_ = ::open(temp_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_io(temp_path_, "create");
  buffer_.resize(std::size_t{1} << 20);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temp_path_.c_str());
  }
}

void AtomicFile::flush() {
  std::size_t done = 0;
  while (done < used_) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, used_ - done);
    if (n < 0) {
      if (errno == EINTR) continue;
      throw_io(temp_path_, "write");
    }
    done += static_cast<std::size_t>(n);
  }
  written_ += used_;
  used_ = 0;
}

void AtomicFile::write(const void* data, std::size_t num_bytes) {
  const auto* from = static_cast<const unsigned char*>(data);
  while (num_bytes > 0) {
    const std::size_t n = std::min(num_bytes, buffer_.size() - used_);
    std::memcpy(buffer_.data() + used_, from, n);
    used_ += n;
    from += n;
    num_bytes -= n;
    if (used_ == buffer_.size()) flush();
  }
}

void AtomicFile::write_at(std::uint64_t offset, const void* data, std::size_t num_bytes) const {
  const auto* from = static_cast<const unsigned char*>(data);
  while (num_bytes > 0) {
    const ssize_t n = ::pwrite(fd_, from, num_bytes, static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      throw_io(temp_path_, "write");
    }
    from += n;
    offset += static_cast<std::uint64_t>(n);
    num_bytes -= static_cast<std::size_t>(n);
  }
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) throw_io(temp_path_, "sync");
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0 || std::rename(temp_path_.c_str(), path_.c_str()) != 0) {
    const int saved = errno;
    ::unlink(temp_path_.c_str());
    errno = saved;
    throw_io(path_, "replace");
  }
}

std::uint64_t free_disk_bytes(const std::string& directory) {
  struct statvfs info{};
  if (::statvfs(directory.c_str(), &info) != 0) throw_io(directory, "read free space of");
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace gramcore
