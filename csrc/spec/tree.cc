#include "spec/tree.h"

#include <cstring>
#include <limits>
#include <unordered_map>

namespace gramcore::spec {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

template <class T>
void fill_rows(const TreeLayout& layout, std::int64_t first, std::int64_t base, const TensorView& out, T open,
               T closed) {
  const std::int64_t columns = out.shape[1];
  for (std::int64_t r = 0; r < out.shape[0]; ++r) {
    T* row = out.as<T>() + r * out.stride[0];
    for (std::int64_t c = 0; c < columns; ++c) row[c] = closed;
    if (r >= layout.rows) {
      row[first] = open;
      continue;
    }
    for (std::int64_t c = first; c < base; ++c) row[c] = open;
    for (std::int64_t c = 0; c <= r; ++c) {
      if (layout.sees(r, c)) row[base + c] = open;
    }
  }
}

}  // namespace

void check_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int64_t vocab_size) {
  GC_CHECK(tokens.size() == parents.size(), "parents must have one entry per token, got ", parents.size(),
           " parents and ", tokens.size(), " tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    GC_CHECK(parents[i] >= -1 && parents[i] < static_cast<std::int32_t>(i),
             "parents must come before their children (-1 = root), got parents[", i, "] = ", parents[i],
             "; order the nodes topologically");
    GC_CHECK(tokens[i] >= 0 && (vocab_size <= 0 || tokens[i] < vocab_size), "tokens must be in [0, ", vocab_size,
             "), got tokens[", i, "] = ", tokens[i], "; the drafter and the model must share a vocabulary");
  }
}

TreeLayout build_layout(Span<const std::int32_t> parents) {
  TreeLayout layout;
  layout.rows = static_cast<std::int64_t>(parents.size()) + 1;
  layout.words = (layout.rows + 63) / 64;
  layout.depth.assign(at(layout.rows), 0);
  layout.seen.assign(at(layout.rows * layout.words), 0);
  layout.seen[0] = 1;
  for (std::int64_t r = 1; r < layout.rows; ++r) {
    const std::int64_t parent_row = parents[at(r - 1)] + 1;
    layout.depth[at(r)] = layout.depth[at(parent_row)] + 1;
    for (std::int64_t w = 0; w < layout.words; ++w) {
      layout.seen[at(r * layout.words + w)] = layout.seen[at(parent_row * layout.words + w)];
    }
    layout.seen[at(r * layout.words + (r >> 6))] |= 1ull << (r & 63);
  }
  return layout;
}

std::vector<std::int32_t> prune_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents,
                                     Span<const std::uint8_t> keep, std::int64_t budget,
                                     std::vector<std::int32_t>* parents_out) {
  check_tree(tokens, parents, 0);
  GC_CHECK(keep.empty() || keep.size() == tokens.size(), "keep must be empty or have one entry per node, got ",
           keep.size(), " for ", tokens.size(), " nodes");
  constexpr std::int32_t kGone = -2;
  std::vector<std::int32_t> renamed(tokens.size(), kGone), kept;
  std::unordered_map<std::uint64_t, std::int32_t> children;  // (new parent + 1, token) -> new index
  parents_out->clear();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::int32_t parent = parents[i] < 0 ? -1 : renamed[static_cast<std::size_t>(parents[i])];
    if (parent == kGone || (!keep.empty() && !keep[i])) continue;
    const std::uint64_t key = (static_cast<std::uint64_t>(parent + 1) << 32) | static_cast<std::uint32_t>(tokens[i]);
    const auto found = children.find(key);
    if (found != children.end()) {
      renamed[i] = found->second;
      continue;
    }
    if (static_cast<std::int64_t>(kept.size()) >= budget) continue;
    renamed[i] = static_cast<std::int32_t>(kept.size());
    children.emplace(key, renamed[i]);
    kept.push_back(static_cast<std::int32_t>(i));
    parents_out->push_back(parent);
  }
  return kept;
}

std::int32_t find_child(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int64_t row,
                        std::int32_t token) {
  GC_CHECK_AS(OutOfRange, row >= 0 && row <= static_cast<std::int64_t>(tokens.size()), "row must be in [0, ",
              tokens.size(), "], got ", row);
  for (std::size_t i = at(row); i < tokens.size(); ++i) {
    if (parents[i] == row - 1 && tokens[i] == token) return static_cast<std::int32_t>(i);
  }
  return -1;
}

void fill_mask(const TreeLayout& layout, std::int64_t first, std::int64_t base, const TensorView& out) {
  GC_CHECK(out.rank == 2 && out.shape[0] >= layout.rows && out.shape[1] >= base + layout.rows &&
               (out.shape[1] <= 1 || out.stride[1] == 1),
           "mask must be (rows >= ", layout.rows, ", columns >= ", base + layout.rows, ") with dense rows, got shape ",
           shape_string(out));
  GC_CHECK(first >= 0 && first <= base, "first must be in [0, base], got ", first, " (base ", base, ")");
  switch (out.dtype) {
    case DType::boolean: return fill_rows<bool>(layout, first, base, out, true, false);
    case DType::f32: return fill_rows<float>(layout, first, base, out, 0.0f, std::numeric_limits<float>::lowest());
    case DType::bf16: return fill_rows<bf16>(layout, first, base, out, bf16{0}, bf16{0xff7f});
    case DType::f16: return fill_rows<f16>(layout, first, base, out, f16{0}, f16{0xfbff});
    default:
      throw TypeMismatch(cat("mask dtype must be bool, float32, bfloat16 or float16, got ", dtype_name(out.dtype)));
  }
}

void check_path(Span<const std::int32_t> parents, Span<const std::int32_t> path) {
  std::int32_t previous = -1;
  for (std::size_t i = 0; i < path.size(); ++i) {
    GC_CHECK(path[i] >= 0 && path[i] < static_cast<std::int32_t>(parents.size()) &&
                 parents[static_cast<std::size_t>(path[i])] == previous,
             "path must lead from a child of the root downwards, got node ", path[i], " at position ", i);
    previous = path[i];
  }
}

}  // namespace gramcore::spec
