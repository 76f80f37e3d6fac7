// A pointer and a length: how core code receives and hands on arrays it does not own.
#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/check.h"

namespace gramcore {

template <class T>
class Span {
 public:
  using value_type = std::remove_cv_t<T>;

  constexpr Span() = default;
  constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) : data_(array), size_(N) {}
  Span(std::vector<value_type>& v) : data_(v.data()), size_(v.size()) {}
  template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
  Span(const std::vector<value_type>& v) : data_(v.data()), size_(v.size()) {}
  template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
  constexpr Span(Span<value_type> other) : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }
  T& operator[](std::size_t i) const {
    GC_DCHECK(i < size_);
    return data_[i];
  }
  T& front() const { return (*this)[0]; }
  T& back() const { return (*this)[size_ - 1]; }

  Span first(std::size_t n) const { return subspan(0, n); }
  Span last(std::size_t n) const { return subspan(size_ - n, n); }
  Span subspan(std::size_t offset) const { return subspan(offset, size_ - offset); }
  Span subspan(std::size_t offset, std::size_t n) const {
    GC_DCHECK(offset <= size_ && n <= size_ - offset);
    return Span(data_ + offset, n);
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

inline Span<const unsigned char> as_bytes(std::string_view text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

}  // namespace gramcore
