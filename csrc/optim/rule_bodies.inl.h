// The elementwise rules, once for vectors of the CPU and for scalars of a CUDA thread.  Included inside a namespace
// that has fast_div, fast_sqrt, vsign, vabs, vmin and vmax of V, with GC_RULE as the qualifiers of a function.
//
// Common coefficients: c[0] multiplies the gradient (sign of maximize, loss scale, clipping), c[1] times the parameter
// is added to it before the update and c[2] after (decoupled weight decay, negative), c[3] times the parameter is added
// to the gradient (coupled decay).  The rest belongs to the rule.

// m += c4 (g - m);  v = c5 v + c6 g g;  p -= c7 m / (sqrt(v) c8 + c9)
struct Adam {
  static constexpr int kSlots = 2;
  template <class V>
  GC_RULE void fold(const float* c, V g, V* s) {
    s[0] += c[4] * (g - s[0]);
    s[1] = c[5] * s[1] + c[6] * (g * g);
  }
  template <class V>
  GC_RULE void move(const float* c, V& p, const V* s) {
    p -= c[7] * fast_div(s[0], fast_sqrt(s[1]) * c[8] + c[9]);
  }
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V* s) {
    fold(c, g, s);
    move(c, p, s);
  }
};

// Magnitude of Adam, direction of the gradient (Cao et al. 2024): p -= sign(g) |adam step|
struct Grams {
  static constexpr int kSlots = 2;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V* s) {
    s[0] += c[4] * (g - s[0]);
    s[1] = c[5] * s[1] + c[6] * (g * g);
    p -= c[7] * vsign(g) * fast_div(vabs(s[0]), fast_sqrt(s[1]) * c[8] + c[9]);
  }
};

// p -= c7 sign(m + c4 (g - m));  m += c5 (g - m)
struct Lion {
  static constexpr int kSlots = 1;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V* s) {
    p -= c[7] * vsign(s[0] + c[4] * (g - s[0]));
    s[0] += c[5] * (g - s[0]);
  }
};

// p -= c7 g
struct Sgd {
  static constexpr int kSlots = 0;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V*) {
    p -= c[7] * g;
  }
};

// m = c4 m + c5 g;  p -= c7 (c6 m + c8 g)      (c6, c8) = (1, 0), or (momentum, 1) with Nesterov
struct SgdMomentum {
  static constexpr int kSlots = 1;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V* s) {
    s[0] = c[4] * s[0] + c[5] * g;
    p -= c[7] * (c[6] * s[0] + c[8] * g);
  }
};

// m += c4 (g - m);  p -= c7 clip(m / max(c5 h, c6), 1)       h is changed elsewhere
struct Sophia {
  static constexpr int kSlots = 2;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V* s) {
    s[0] += c[4] * (g - s[0]);
    const V ratio = fast_div(s[0], vmax(c[5] * s[1], V{} + c[6]));
    p -= c[7] * vmax(V{} - 1.0f, vmin(V{} + 1.0f, ratio));
  }
};

// p -= c7 sign(g)
struct Sign {
  static constexpr int kSlots = 0;
  template <class V>
  GC_RULE void apply(const float* c, V& p, V g, V*) {
    p -= c[7] * vsign(g);
  }
};

template <class Rule, class V>
GC_RULE void update(const float* c, V& p, V g, V* s) {
  const V signed_g = c[0] * g + c[3] * p;
  p += c[1] * p;
  Rule::apply(c, p, signed_g, s);
  p += c[2] * p;
}
