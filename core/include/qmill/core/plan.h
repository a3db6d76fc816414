// The plan of a conversion: one decision per tensor, with the rule that made it, and the exact file that will come of it.
// A dry run prints this object; a run executes the same object.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>
#include <qmill/core/output_plan.h>

#include <atomic>

namespace qmill {

class Calibration;
class Merge;

enum class Action {
  quantize,
  correct,  // a bias: changed with its layer, then cast if keep_dtype asks for it
  cast,
  copy,
  merge,  // changed by LoRAs, then stored in its own type
  remove,
};

QMILL_CORE_API std::string_view action_name(Action action);

struct Decision {
  TensorInfo source;             // as the file has it
  TensorInfo values;             // as the run reads it: F32 where LoRAs change it
  std::size_t source_index = 0;  // in TensorSource::tensors()
  bool is_layer = false;         // a matrix that quantization is about
  Action action = Action::copy;
  std::string rule;                      // remove, layer_config, custom, exclude, embeddings, filter, fallback, heuristic, primary, ...
  std::string reason;                    // the pattern, filter or number behind it
  const Quantizer* quantizer = nullptr;  // action quantize
  LayerTarget target;                    // action quantize
  FormatLabel label;                     // action quantize
  std::optional<std::size_t> bias;       // action quantize: the decision about the bias that is corrected with it
  std::vector<std::size_t> merges;       // numbers of the LoRAs in Plan::merge_account that change its values first
  std::vector<TensorInfo> outputs;       // empty: removed
};

// A file that is read, as it was when the plan was made.
struct PlannedInput {
  std::filesystem::path file;
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;             // ns since 1970
  std::uint64_t device = 0, number = 0;  // where it is
};

struct Plan {
  ConvertOptions options;           // that it was made with
  std::vector<Decision> decisions;  // in the order of the source
  OutputPlan output;
  std::string chosen_quantizer;                           // what "auto" became; else the name that was asked for
  std::string chosen_because;                             // why "auto" became that; empty: it was asked for
  std::shared_ptr<const Calibration> calibration;         // null: there are no data
  std::optional<CalibrationAccount> calibration_account;  // of `calibration`
  std::shared_ptr<const Merge> merge;                     // null: nothing is merged
  std::optional<MergeAccount> merge_account;              // of `merge`
  std::int64_t seed = 0;                                  // that is used
  std::vector<std::filesystem::path> source_files;        // that the source is read from
  std::vector<PlannedInput> inputs;                       // all files that are read
  MemoryPolicy memory;
  std::string architecture;          // which model it is; empty: not known
  std::vector<std::string> filters;  // that decided; "auto" replaced by what it became
  std::string not_loaded;            // of layers that are quantized: why mainline ComfyUI does not load them; empty: it does
  std::string not_judged;            // the same: why it is not known whether it does; empty: it is
  std::vector<std::string> warnings;
  std::vector<std::string> remarks;  // options that change nothing here, and why
  bool read_data = false;            // a rule needed the values of layers
  std::string inputs_identity;       // tells the files that are read from others: their sizes and headers

  QMILL_CORE_API std::size_t count(Action action) const;

  // That the output will be: options.output, or its shards and, last, their index.
  QMILL_CORE_API std::vector<std::filesystem::path> output_files() const;

  // The plan as JSON (docs/json.md), indented; it has everything that is decided, and the digest.
  QMILL_CORE_API std::string json() const;

  // 32 hexadecimal digits that change exactly when a byte of the output could: they stand for every decision with its target, the exact
  // header, the seed, and the headers and sizes of all files that are read. The values in these files are not read, so a file whose values
  // changed under the same header has the same digest. Threads, memory and reports have no part in it.
  QMILL_CORE_API std::string digest() const;
};

// Reads headers only, unless a heuristic needs data. Throws Error for what is wrong with options or source: unknown names, contradictions, an
// already quantized source; Error(cancelled) once *cancel is true. Where options.decode_to is set, no layer is quantized: the decoded layers
// of the source are stored in that type.
QMILL_CORE_API Plan make_plan(const Host& host, const TensorSource& source, const ConvertOptions& options,
                              const std::atomic<bool>* cancel = nullptr);

// What is wrong with these options for any model: names of filters, formats and quantizers, regular expressions, files that do not exist.
// Opens no file. Throws Error(usage, io).
QMILL_CORE_API void check_choices(const Host& host, const ConvertOptions& options);

// Throws Error(input) with the rules that kept the layers, if the plan quantizes none.
QMILL_CORE_API void require_selection(const Plan& plan);

// A layer configuration that names every layer of the source, and loads back as it is.
QMILL_CORE_API std::string layer_config_template(const TensorSource& source, std::string_view format);

}  // namespace qmill
