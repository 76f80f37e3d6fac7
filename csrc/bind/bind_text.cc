// The families that work on text and token sequences.
#include "bind/bind.h"
#include "bind/grammar.inl.h"
#include "bind/ngram.inl.h"

namespace gramcore {

void bind_text(pybind11::module_& m) {
  ngram::bind_ngram(m);
  bind_grammar(m);
}

}  // namespace gramcore
