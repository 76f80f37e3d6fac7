// Follows a text that is being copied, with small edits, from an earlier place in itself.
//
// The cursor stands on the earlier token expected next.  It is set where the last kSeed tokens occurred before (the
// latest such place, found by a hash of kSeed tokens), advances while the text agrees, and when a token differs looks
// for the place to go on within a few tokens: behind a replaced or left-out passage, or where it stood after an
// insertion. O(kSeed) per token in step, O(kAhead * kCap) after a difference; about 12 bytes per token.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"

namespace gramcore::spec {

class CopyCursor {
 public:
  static constexpr int kSeed = 8;   // tokens that must agree to set the cursor
  static constexpr int kAhead = 8;  // how far behind a difference to look for the place to go on
  static constexpr int kLost = 6;   // tokens out of step after which the cursor is given up
  static constexpr int kSure = 2;   // agreement that sets the cursor again after a difference
  static constexpr int kCap = 32;   // agreement is counted up to here

  struct Source {
    std::int64_t place = -1;     // of the token expected next; -1: nothing is being copied
    std::int64_t agreement = 0;  // tokens before it that agree with the end of the text, at most kCap
  };

  void extend(Span<const std::int32_t> tokens);
  void rollback(std::int64_t n);  // forgets the last n tokens; O(text)
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(text_.size()); }

  Source source() const;
  // What the source says comes next; reading past the end of the text goes on in the draft, so a period continues.
  std::vector<std::int32_t> propose(std::int64_t max_tokens) const;

 private:
  void append(std::int32_t token);
  std::int64_t agreement(std::int64_t place) const;
  Source nearby() const;                     // the best place around the cursor while out of step
  std::size_t slot(std::int64_t end) const;  // of the kSeed tokens before `end`, in ends_
  void grow();

  std::vector<std::int32_t> text_;
  std::vector<std::uint32_t> ends_;  // open addressing by kSeed tokens: one past their latest place, or 0
  std::int64_t place_ = -1;
  int lost_ = 0;  // tokens since the text last agreed
};

}  // namespace gramcore::spec
