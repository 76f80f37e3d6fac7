#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/rng.h"
#include "grammar/bnf.h"
#include "grammar/matcher.h"
#include "grammar/regex.h"
#include "grammar/schema.h"
#include "grammar/tails.h"
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

// All texts of one to four letters: enough tokens behind every place that lexemes of pairs are made.
std::shared_ptr<const Vocab> all_texts(const std::string& alphabet) {
  std::vector<std::string> texts{""};
  std::size_t shorter = 0;
  for (int length = 1; length <= 4; ++length) {
    const std::size_t end = texts.size();
    for (std::size_t i = shorter; i < end; ++i) {
      for (const char c : alphabet) texts.push_back(texts[i] + c);
    }
    shorter = end;
  }
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint64_t> offsets;
  for (const std::string& text : texts) {  // the first, without text, is the stop token
    offsets.push_back(bytes.size());
    bytes.insert(bytes.end(), text.begin(), text.end());
  }
  offsets.push_back(bytes.size());
  return std::make_shared<Vocab>(std::move(bytes), std::move(offsets), std::vector<std::uint32_t>{},
                                 std::vector<std::uint32_t>{0});
}

void check_masks_are_walks(const std::shared_ptr<Compiled>& compiled, Rng* rng) {
  const Vocab& vocab = compiled->vocab();
  for (int walk = 0; walk < 8; ++walk) {
    Matcher matcher(compiled);
    for (int step = 0; step < 12 && !matcher.is_terminated(); ++step) {
      std::vector<std::int32_t> mask(vocab.words()), slow(vocab.words());
      matcher.fill_bitmask(mask.data());
      compiled->fill_slowly(matcher.state(), slow.data());
      EXPECT(mask == slow);
      std::vector<std::int64_t> allowed;
      for (std::size_t t = 1; t < vocab.size(); ++t) {
        if (bitmask_test(mask.data(), t)) allowed.push_back(static_cast<std::int64_t>(t));
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

GC_TEST(grammar_masks_are_walks_of_the_trie) {
  Rng rng(7);
  const auto vocab = all_texts("a1\"{}[]:, ");
  for (const char* text :
       {"{}", R"({"type":"array","items":{"type":"object","additionalProperties":{"$ref":"#"}}})",
        R"({"type":"object","properties":{"a1":{"type":"string","pattern":"1a"},"a":{"$ref":"#"},"1":false}})",
        R"({"type":"object","additionalProperties":{"type":"string","pattern":"a1.*:a$"},"minProperties":1})",
        R"({"type":"string","minLength":2,"not":{"enum":["a1","a1a","::"]}})",
        R"({"items":{"type":"string","oneOf":[{"pattern":"a1a"},{"pattern":"11"},{"pattern":":a"}]}})",
        R"({"type":"object","patternProperties":{"a1":{},"^1":false,":a$":{"not":{"pattern":"1a"}}}})",
        R"({"type":"string","pattern":"a1|:1:","minLength":4,"maxLength":9})",
        R"({"anyOf":[{"required":["a"],"properties":{"a":{"$ref":"#"},"1":{"const":1}}},
                     {"required":["1"],"properties":{"a":{"$ref":"#"},"1":{"type":"string"}}}]})"}) {
    const Json root = parse_json(text);
    SchemaCompiler compiler(root, {});
    check_masks_are_walks(std::make_shared<Compiled>(vocab, compiler.run(), Limits{}), &rng);
  }
  for (const char* text : {
           "root ::= e\ne ::= e \",\" t | t\nt ::= [a1 ]+ | \"{\" e \"}\" | [a1]* \"[\" e? \"]\"",
           "root ::= \"{\" w* \"}\" root?\nw ::= s | n\ns ::= \"\\\"\" [^\"]{0,5} \"\\\"\"\nn ::= [a1]+ (\":\" n)? \" "
           "\"*",
       }) {
    Grammar grammar = parse_bnf(text, BnfSyntax::kGbnf);
    prepare(&grammar);
    check_masks_are_walks(std::make_shared<Compiled>(vocab, std::move(grammar), Limits{}), &rng);
  }
}

// Each level of the text may be any of eight alternatives, which only its end tells apart: 8^30 ways to read it.
GC_TEST(grammar_alternatives_that_nest_are_followed_once) {
  std::string text = R"({"anyOf":[)";
  for (int i = 0; i < 8; ++i) {
    text += (i ? "," : "") + std::string(R"({"type":"object","required":["z)") + static_cast<char>('0' + i) +
            R"("],"properties":{"a":{"$ref":"#"},"z)" + static_cast<char>('0' + i) + R"(":{"const":1}}})";
  }
  const Json root = parse_json(text + R"(,{"const":0}]})");
  SchemaCompiler schema(root, {});
  Compiled compiled(bytes_and_pairs(), schema.run(), Limits{});
  StateId state = compiled.start();
  const auto advance = [&](const std::string& bytes) { state = compiled.advance(state, as_bytes(bytes)); };
  for (int depth = 0; depth < 30; ++depth) advance("{\"a\":");
  advance("0");
  for (int depth = 0; depth < 30; ++depth) advance(",\"z" + std::to_string(depth % 8) + "\":1}");
  EXPECT(compiled.accepting(state));
  EXPECT(compiled.num_states() < 5000);
}

GC_TEST(grammar_tries_laid_over_each_other) {
  Rng rng(8);
  const auto vocab = bytes_and_pairs();
  const Trie& trie = vocab->trie();
  const auto text_of = [&](const Trie& t, std::uint32_t node, std::uint16_t from) {
    std::string out;  // the bytes from the ancestor at depth `from` down to the node
    for (std::uint16_t d = t.nodes[node].depth; d > from;) {
      out.insert(out.begin(), static_cast<char>(t.nodes[node].byte));
      --d;
      while (t.nodes[node].depth > d) --node;
    }
    return out;
  };
  using Set = std::multimap<std::string, std::uint32_t>;
  for (int round = 0; round < 40; ++round) {
    std::vector<std::uint32_t> places;
    for (std::uint32_t i = 1; i < trie.nodes[0].end; ++i) {
      if (rng.next_below(4) == 0) places.push_back(i);
    }
    Set expected, got;
    for (const std::uint32_t place : places) {
      const Trie::Node& root = trie.nodes[place];
      for (std::uint32_t i = place + 1; i < root.end; ++i) {
        for (std::uint32_t t = trie.nodes[i].first_token; t < trie.nodes[i + 1].first_token; ++t) {
          expected.emplace(text_of(trie, i, root.depth), trie.tokens[t]);
        }
      }
    }
    const Tails tails(trie, places);
    for (const std::uint8_t byte : tails.first_bytes()) {
      std::size_t grown = 0;
      const Trie& behind = tails.behind(byte, &grown);
      EXPECT_EQ(grown, behind.bytes());
      EXPECT_EQ(&tails.behind(byte, &grown), &behind);
      EXPECT_EQ(grown, behind.bytes());
      for (std::uint32_t i = 0; i < behind.nodes[0].end; ++i) {
        if (i > 0) EXPECT(behind.nodes[i].end <= behind.nodes[0].end && behind.nodes[i].end > i);
        for (std::uint32_t t = behind.nodes[i].first_token; t < behind.nodes[i + 1].first_token; ++t) {
          got.emplace(static_cast<char>(byte) + text_of(behind, i, 0), behind.tokens[t]);
        }
      }
    }
    EXPECT(std::set<Set::value_type>(expected.begin(), expected.end()) ==
           std::set<Set::value_type>(got.begin(), got.end()));
    EXPECT_EQ(expected.size(), got.size());
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
