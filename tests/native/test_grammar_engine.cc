#include <string>
#include <vector>

#include "core/rng.h"
#include "grammar/matcher.h"
#include "grammar/regex.h"
#include "grammar/schema.h"
#include "native/test.h"

using namespace gramcore;
using namespace gramcore::grammar;

namespace {

std::shared_ptr<const Vocab> bytes_and_pairs() {
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint64_t> offsets{0};
  for (unsigned b = 0; b < 256; ++b) {
    bytes.push_back(static_cast<std::uint8_t>(b));
    offsets.push_back(bytes.size());
  }
  const std::string alphabet = "ab\"{}[]:,1 ";
  for (const char x : alphabet) {
    for (const char y : alphabet) {
      for (const char c : {x, y, x}) bytes.push_back(static_cast<std::uint8_t>(c));
      offsets.push_back(bytes.size());
    }
  }
  offsets.push_back(bytes.size());  // one stop token without text
  const auto stop = static_cast<std::uint32_t>(offsets.size() - 2);
  return std::make_shared<Vocab>(std::move(bytes), std::move(offsets), std::vector<std::uint32_t>{},
                                 std::vector<std::uint32_t>{stop});
}

void check_random_walks(const std::shared_ptr<Compiled>& compiled, Rng* rng) {
  const Vocab& vocab = compiled->vocab();
  for (int walk = 0; walk < 6; ++walk) {
    Matcher matcher(compiled);
    for (int step = 0; step < 25; ++step) {
      std::vector<std::int32_t> mask(vocab.words()), slow(vocab.words());
      matcher.fill_bitmask(mask.data());
      std::vector<std::int64_t> allowed;
      const StateId here = matcher.state();
      if (!matcher.is_terminated()) {
        compiled->fill_slowly(here, slow.data());
        EXPECT(mask == slow);
      }
      for (std::size_t t = 0; t < vocab.size(); ++t) {
        const bool bit = bitmask_test(mask.data(), t);
        const bool taken = matcher.accept(static_cast<std::int64_t>(t));
        EXPECT_EQ(bit, taken);
        if (taken) {
          allowed.push_back(static_cast<std::int64_t>(t));
          matcher.rollback(1);
          EXPECT_EQ(matcher.state(), here);
        }
      }
      if (allowed.empty()) break;
      EXPECT(matcher.accept(allowed[rng->next_below(static_cast<std::uint32_t>(allowed.size()))]));
    }
  }
}

}  // namespace

GC_TEST(grammar_masks_are_accept_for_regular_expressions) {
  Rng rng(5);
  const auto vocab = bytes_and_pairs();
  for (const char* text : {"(?:a|ba)*b{2,5}", "[^\"]{0,3}\"(?:,a|:b)*", "a*b*&(?:aa)*b&~(?:aab)", "\xC3\xA9|1+"}) {
    Grammar grammar;
    RegexOptions options;
    options.boolean_operators = true;
    grammar.start = parse_regex(text, options, &grammar.pool);
    check_random_walks(std::make_shared<Compiled>(vocab, std::move(grammar), Limits{}), &rng);
  }
}

GC_TEST(grammar_masks_are_accept_for_schemas) {
  Rng rng(6);
  const auto vocab = bytes_and_pairs();
  for (const char* text :
       {"{}",
        R"({"type":"object","properties":{"a":{"$ref":"#"},"b":{"type":"string","maxLength":3}},"required":["b"]})",
        R"({"type":"array","items":{"enum":[1,"a",null,{"b":[1]}]},"minItems":1,"maxItems":3})",
        R"({"not":{"type":["object","array"]},"minimum":-3,"maximum":11.5})"}) {
    const Json root = parse_json(text);
    SchemaCompiler compiler(root, {});
    check_random_walks(std::make_shared<Compiled>(vocab, compiler.run(), Limits{}), &rng);
  }
}

GC_TEST(grammar_front_ends_survive_noise) {
  Rng rng(7);
  const std::string letters = "(){}[]*+?|\\^$.,:-09azu\"&~\xC3\xA9\xFF\n tfn#/$ref";
  const auto vocab = bytes_and_pairs();
  int parsed = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (std::uint32_t n = rng.next_below(24); n > 0; --n) {
      text.push_back(letters[rng.next_below(static_cast<std::uint32_t>(letters.size()))]);
    }
    try {
      Grammar grammar;
      if (round % 2) {
        RegexOptions options;
        options.boolean_operators = true;
        grammar.start = parse_regex(text, options, &grammar.pool);
      } else {
        const Json root = parse_json("{\"pattern\":\"\",\"" + text);
        SchemaCompiler compiler(root, {});
        grammar = compiler.run();
      }
      Limits limits;
      limits.max_states = 5000;
      Compiled compiled(vocab, std::move(grammar), limits);
      ++parsed;
    } catch (const InvalidArgument& error) {
      EXPECT(!std::string(error.what()).empty());
    } catch (const GrammarTooComplex& error) {
      EXPECT(!std::string(error.what()).empty());
    }
  }
  EXPECT(parsed > 50);
}
