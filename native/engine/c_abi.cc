// The C ABI: checks every argument, turns exceptions into a status and a line of text.

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <string>

#include "engine/error.h"
#include "engine/forward.h"
#include "engine/limits.h"
#include "engine/model.h"
#include "engine/thread_pool.h"
#include "include/bitpress.h"
#include "kernels/dispatch.h"

struct bp_model {
  bitpress::Model model;
  std::unique_ptr<bitpress::ModelBuilder> builder;  // NULL once finished
  mutable bitpress::WorkspaceCache workspaces;
};

namespace {

using bitpress::Error;
using bitpress::Refuse;

thread_local std::string last_error;

// Runs body; a status instead of an exception. Nothing may leave the library but a return value.
template <typename Body>
bp_status Guard(const Body& body) noexcept {
  try {
    body();
    return BP_OK;
  } catch (const Error& e) {
    last_error = e.what();
    return e.status();
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";  // short enough to need none
    return BP_OUT_OF_MEMORY;
  } catch (const std::exception& e) {
    last_error = e.what();
    return BP_INTERNAL;
  }
}

void RequireArgument(const void* pointer, const char* name) {
  if (pointer == nullptr) Refuse(std::string(name) + " is NULL");
}

const bitpress::Kernels& RequireKernels() {
  std::string why;
  const bitpress::Kernels* kernels = bitpress::ChosenKernels(&why);
  if (kernels == nullptr) throw Error(BP_UNSUPPORTED_ISA, why);
  return *kernels;
}

bitpress::ModelBuilder& RequireBuilder(bp_model* model) {
  RequireArgument(model, "model");
  if (model->builder == nullptr) Refuse("the model is finished and cannot be changed");
  return *model->builder;
}

void RequireFinished(const bp_model* model) {
  RequireArgument(model, "model");
  if (model->builder != nullptr) Refuse("the model is not finished: call bp_model_finish first");
}

// Checks lengths, ids and types; the number of tokens.
size_t CheckBatch(const bp_config& config, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
                  size_t num_sequences) {
  size_t token = 0;
  for (size_t s = 0; s < num_sequences; ++s) {
    const std::string sequence = "sequence " + std::to_string(s);
    if (lengths[s] < 1 || lengths[s] > config.max_positions) {
      Refuse(sequence + " has " + std::to_string(lengths[s]) + " tokens, allowed are 1 to " +
             std::to_string(config.max_positions));
    }
    for (uint32_t i = 0; i < lengths[s]; ++i, ++token) {
      if (ids[token] < 0 || static_cast<uint32_t>(ids[token]) >= config.vocab_size) {
        Refuse(sequence + ", token " + std::to_string(i) + ": id is " + std::to_string(ids[token]) +
               ", allowed are 0 to " + std::to_string(config.vocab_size - 1));
      }
      if (type_ids != nullptr &&
          (type_ids[token] < 0 || static_cast<uint32_t>(type_ids[token]) >= config.type_vocab_size)) {
        Refuse(sequence + ", token " + std::to_string(i) + ": type id is " + std::to_string(type_ids[token]) +
               ", allowed are 0 to " + std::to_string(config.type_vocab_size - 1));
      }
    }
  }
  return token;
}

// bp_forward and bp_profile.
void Run(const bp_model* model, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
         size_t num_sequences, float* logits, float* hidden_states, uint32_t threads, uint64_t* nanoseconds) {
  RequireFinished(model);
  if (num_sequences == 0) return;
  RequireArgument(ids, "ids");
  RequireArgument(lengths, "lengths");
  RequireArgument(logits, "logits");
  const size_t tokens = CheckBatch(model->model.config, ids, type_ids, lengths, num_sequences);
  bitpress::Forward(model->model, model->workspaces, {ids, type_ids, lengths, num_sequences, tokens}, logits,
                    hidden_states, threads, nanoseconds);
}

}  // namespace

extern "C" {

const char* bp_isa(void) {
  const char* isa = nullptr;
  Guard([&] { isa = RequireKernels().isa; });
  return isa;
}

uint32_t bp_abi_version(void) { return BP_ABI_VERSION; }

const char* bp_last_error(void) { return last_error.c_str(); }

const char* bp_available_isas(void) { return bitpress::AvailableIsas(); }

uint32_t bp_hardware_threads(void) { return static_cast<uint32_t>(bitpress::HardwareThreads()); }

bp_status bp_model_create(const bp_config* config, bp_model** model) {
  return Guard([&] {
    RequireArgument(config, "config");
    RequireArgument(model, "model");
    *model = nullptr;
    if (config->abi_version != BP_ABI_VERSION) {
      Refuse("config: abi_version is " + std::to_string(config->abi_version) + ", this library has " +
             std::to_string(BP_ABI_VERSION));
    }
    auto made = std::make_unique<bp_model>();
    made->builder = std::make_unique<bitpress::ModelBuilder>(*config, &RequireKernels(), &made->model);
    *model = made.release();
  });
}

bp_status bp_model_set_float(bp_model* model, const char* name, const float* data, size_t rows, size_t cols) {
  return Guard([&] {
    bitpress::ModelBuilder& builder = RequireBuilder(model);
    RequireArgument(name, "name");
    RequireArgument(data, "data");
    builder.SetFloat(name, data, rows, cols);
  });
}

bp_status bp_model_set_packed(bp_model* model, const char* name, const bp_packed* tensor) {
  return Guard([&] {
    bitpress::ModelBuilder& builder = RequireBuilder(model);
    RequireArgument(name, "name");
    RequireArgument(tensor, "tensor");
    RequireArgument(tensor->codes, "tensor->codes");
    RequireArgument(tensor->scale, "tensor->scale");
    builder.SetPacked(name, *tensor);
  });
}

bp_status bp_model_set_range(bp_model* model, const char* point, float scale, float offset) {
  return Guard([&] {
    bitpress::ModelBuilder& builder = RequireBuilder(model);
    RequireArgument(point, "point");
    builder.SetRange(point, scale, offset);
  });
}

bp_status bp_model_finish(bp_model* model) {
  return Guard([&] {
    RequireBuilder(model).Finish();
    model->builder.reset();
  });
}

void bp_model_free(bp_model* model) { delete model; }

bp_status bp_model_panels(const bp_model* model, const char* name, size_t* panels, size_t* fast_panels) {
  return Guard([&] {
    RequireFinished(model);
    RequireArgument(name, "name");
    RequireArgument(panels, "panels");
    RequireArgument(fast_panels, "fast_panels");
    const bitpress::Linear& linear = bitpress::FindLinear(model->model, name);
    *panels = linear.is_integer ? linear.integer.panels : 0;
    *fast_panels = linear.is_integer ? linear.integer.fast_panels() : 0;
  });
}

bp_status bp_forward(const bp_model* model, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
                     size_t num_sequences, float* logits, float* hidden_states, uint32_t threads) {
  return Guard([&] { Run(model, ids, type_ids, lengths, num_sequences, logits, hidden_states, threads, nullptr); });
}

bp_status bp_profile(const bp_model* model, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
                     size_t num_sequences, float* logits, uint32_t threads, uint64_t* nanoseconds) {
  return Guard([&] {
    RequireArgument(nanoseconds, "nanoseconds");
    std::fill_n(nanoseconds, BP_OPERATIONS, 0);
    Run(model, ids, type_ids, lengths, num_sequences, logits, nullptr, threads, nanoseconds);
  });
}

bp_status bp_machine_limits(double* multiply_adds, double* copied_bytes) {
  return Guard([&] {
    RequireArgument(multiply_adds, "multiply_adds");
    RequireArgument(copied_bytes, "copied_bytes");
    const bitpress::Limits limits = bitpress::MeasureLimits(RequireKernels());
    *multiply_adds = limits.multiply_adds;
    *copied_bytes = limits.copied_bytes;
  });
}

bp_status bp_quantize_rows(const float* x, size_t rows, size_t cols, uint32_t bits, int symmetric, float clip,
                           uint8_t* codes, float* scale, float* offset) {
  return Guard([&] {
    const bitpress::Kernels& kernels = RequireKernels();
    if (rows == 0) return;
    RequireArgument(x, "x");
    RequireArgument(codes, "codes");
    RequireArgument(scale, "scale");
    RequireArgument(offset, "offset");
    if (cols == 0) Refuse("cols is 0, allowed are 1 and above");
    if (bits != 8 && bits != 4) Refuse("bits is " + std::to_string(bits) + ", allowed are 8 and 4");
    if (!std::isfinite(clip) || clip < 0.0f) {
      Refuse("clip is " + std::to_string(clip) + ", allowed are 0 (none) and above");
    }
    bitpress::QuantizeSpec spec;
    spec.bits = bits;
    spec.symmetric = symmetric != 0;
    spec.clip = clip;
    kernels.quantize_rows(x, cols, rows, cols, spec, codes, cols, scale, offset, nullptr);
  });
}

bp_status bp_apply(uint32_t function, float* x, size_t n) {
  return Guard([&] {
    static constexpr bitpress::Activation kFunctions[] = {bitpress::Activation::kGelu, bitpress::Activation::kGeluTanh,
                                                          bitpress::Activation::kRelu, bitpress::Activation::kSilu,
                                                          bitpress::Activation::kTanh, bitpress::Activation::kExp};
    if (function > BP_FN_EXP) {
      Refuse("function is " + std::to_string(function) + ", allowed are 0 to " + std::to_string(BP_FN_EXP));
    }
    if (n == 0) return;
    RequireArgument(x, "x");
    RequireKernels().activate(kFunctions[function], x, n);
  });
}

}  // extern "C"
