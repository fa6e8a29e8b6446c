/* bitpress: the C ABI of the engine, the only door into the native library.
 *
 * Shapes: V vocabulary, P positions, E embedding, H hidden, A attention (heads x columns of a head), L layers,
 * I intermediate, C labels, N tokens of a batch, B sequences.
 * All floats are IEEE fp32, all data little-endian. Matrices are row-major.
 * Every call returns BP_OK or an error code; bp_last_error() then gives one line of text for the calling thread.
 * A finished model is immutable: any number of threads may call bp_forward on it at once.
 */
#ifndef BITPRESS_H_
#define BITPRESS_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BP_API __attribute__((visibility("default")))
#define BP_ABI_VERSION 7

typedef enum {
  BP_OK = 0,
  BP_INVALID_ARGUMENT = 1, /* a value out of range, an unknown name, a wrong shape */
  BP_INCOMPLETE = 2,       /* bp_model_finish: a tensor is missing */
  BP_UNSUPPORTED_ISA = 3,  /* BITPRESS_ISA names an ISA that this CPU or build lacks */
  BP_OUT_OF_MEMORY = 4,
  BP_INTERNAL = 5
} bp_status;

typedef enum { BP_ACT_GELU = 0, BP_ACT_GELU_TANH = 1, BP_ACT_RELU = 2, BP_ACT_SILU = 3 } bp_hidden_act;

/* The elementwise functions of bp_apply: those of the layers, and what softmax and pooler need. */
typedef enum {
  BP_FN_GELU = 0,
  BP_FN_GELU_TANH = 1,
  BP_FN_RELU = 2,
  BP_FN_SILU = 3,
  BP_FN_TANH = 4,
  BP_FN_EXP = 5
} bp_function;

/* How activations enter the linear layers and the attention products. BP_UINT8_*: as codes of activation_bits, with a
 * range from the text itself (docs/numerics.md) or a given one. BP_SIGNS is a fully binarized encoder: one bit
 * each, and every linear weight but the classifier's is binary; bp_attention says which kind. It takes no clip and
 * no activation_symmetric, at most 32,766 hidden, attention and intermediate columns and positions, and heads of at
 * most 256 columns. */
typedef enum { BP_FLOAT = 0, BP_UINT8_TOKEN = 1, BP_UINT8_STATIC = 2, BP_SIGNS = 3 } bp_activation_range;

/* With BP_SIGNS: which keys a query attends to, all with the same weight, and what a bit stands for.
 *   BP_ATTEND_BOOL     BiBERT: those whose score is >= 0. Bits are signs, +1 where x >= 0 and else -1, without a scale;
 *                      hidden_act is not relu.
 *   BP_ATTEND_ALL      every one: sgn(softmax(scores)), the baseline. The rest as BP_ATTEND_BOOL.
 *   BP_ATTEND_SOFTMAX  BiT: those whose probability reaches half of its scale. Bits are x + shift >= 0 and stand for
 *                      +scale or -scale, of ffn.output's input x + shift >= scale / 2 and for scale or 0; hidden_act is
 *                      relu. bp_model_set_float takes L.input.scale (1 x 1) and L.input.shift (1 x inputs) of each
 *                      linear layer L but the classifier, and layers.N.attention.S.scale (1 x 1) with S query_states,
 *                      key_states, value_states and probabilities. Scales are above 0 and at most 2^32.
 * Formulas: docs/numerics.md. */
typedef enum { BP_ATTEND_BOOL = 0, BP_ATTEND_ALL = 1, BP_ATTEND_SOFTMAX = 2 } bp_attention;

/* What the classifier reads. Of each sequence's first token, a function of the pooler's linear: tanh (BERT), relu of
 * that (TinyBERT's release), relu (DistilBERT) or gelu (ELECTRA): one row of logits a sequence. Or, with
 * BP_HEAD_TOKENS, the last hidden state of every token: one row a token, and a model without pooler.
 * Or there is neither pooler nor classifier, and the row of a sequence, of C = H columns, is the mean of its tokens'
 * last hidden states (added up in their order, then divided by their number), the first token's, or the largest of
 * each column: a sentence embedding, before any normalization. */
typedef enum {
  BP_HEAD_LINEAR = 0,
  BP_HEAD_RELU = 1,
  BP_HEAD_DENSE_RELU = 2,
  BP_HEAD_DENSE_GELU = 3,
  BP_HEAD_TOKENS = 4,
  BP_HEAD_MEAN = 5,
  BP_HEAD_CLS = 6,
  BP_HEAD_MAX = 7
} bp_head;

/* How the weights of a packed tensor are stored (docs/artifact.md). */
typedef enum { BP_TERNARY = 0, BP_UNIFORM = 1, BP_CODEBOOK = 2, BP_BINARY = 3 } bp_scheme;
typedef enum { BP_PACK_BITS = 0, BP_PACK_TRITS = 1 } bp_packing;

typedef struct {
  uint32_t abi_version; /* BP_ABI_VERSION */
  uint32_t vocab_size, max_positions, type_vocab_size;
  uint32_t embedding_size; /* E: where it is not H, embeddings.projection, fp32, leads from the embeddings to H */
  uint32_t hidden_size, num_layers, num_heads, intermediate_size, num_labels;
  uint32_t head_size;            /* columns of a head; A = num_heads * head_size need not be hidden_size */
  uint32_t hidden_act;           /* bp_hidden_act */
  uint32_t head;                 /* bp_head */
  uint32_t activation_range;     /* bp_activation_range */
  uint32_t activation_bits;      /* a code: 8 or 4 with BP_UINT8_TOKEN and BP_UINT8_STATIC, otherwise 0 */
  uint32_t activation_symmetric; /* 0 asymmetric, 1 symmetric */
  uint32_t attention;            /* bp_attention; 0 unless BP_SIGNS */
  float activation_clip;         /* c of clamp(x, -c, c) before quantization; 0 means none */
  float layer_norm_eps;
} bp_config;

/* A packed tensor: rows x cols weights.
 *   ternary    bits 2    value = scale * code, code -1, 0 or 1; packing BP_PACK_BITS or BP_PACK_TRITS
 *   uniform    2,3,4,8   value = scale * code + offset, or without offsets ("symmetric") scale * (code - 2^(bits-1)),
 *                        where code 0 does not occur
 *   codebook   2, 3, 4   value = scale * table[code], or of an outlier the number that stands for it
 *   binary     1         value = +scale for bit 1, -scale for bit 0; with two terms the sum of two such values
 * Blocks of group_rows x group_cols weights share a scale and an offset; 0 stands for all rows or columns. Allowed are
 * blocks of whole rows, or of one row and a multiple of 32 columns; all but uniform weights have one scale a
 * matrix or a row. scale and offset: [terms, ceil(rows / group_rows), ceil(cols / group_cols)]. Enums are numbers here,
 * checked: an enum could not hold, so not refuse, anything else. */
typedef struct {
  uint32_t scheme;  /* bp_scheme */
  uint32_t bits;    /* a code */
  uint32_t packing; /* bp_packing */
  uint32_t terms;   /* 1; binary: 1 or 2 */
  size_t rows, cols;
  size_t group_rows, group_cols;
  const uint8_t* codes; /* terms x rows x row_bytes: cols * bits / 8 (trits: cols / 5), rounded up */
  const float* scale;
  size_t scale_count;
  const float* offset; /* NULL: none */
  size_t offset_count;
  const int8_t* table; /* codebook: 2^bits entries; otherwise NULL */
  size_t table_count;
  /* Codebook: weights that are numbers of their own, whatever their codes, of one row after another. NULL, NULL, NULL
   * and 0: none. */
  const uint16_t* outlier_counts;  /* [rows]: how many of them each row has */
  const uint16_t* outlier_columns; /* [outlier_count], ascending within a row */
  const float* outliers;           /* [outlier_count], at most half of the largest float in size */
  size_t outlier_count;
} bp_packed;

typedef struct bp_model bp_model;

/* Chooses the ISA on first use (BITPRESS_ISA forces one). The name ("reference", "avx2", "neondot") or NULL with
 * bp_last_error. */
BP_API const char* bp_isa(void);
BP_API uint32_t bp_abi_version(void);
BP_API const char* bp_last_error(void);
/* Comma-separated ISAs that this build has and this CPU can run. */
BP_API const char* bp_available_isas(void);
/* Logical processors this process may use (sched_getaffinity). */
BP_API uint32_t bp_hardware_threads(void);

/* Building: create, give every tensor by its canonical name, finish. The engine copies or re-lays what it is given,
 * except where `bp_model_set_*` says that the pointer must outlive the model. */
BP_API bp_status bp_model_create(const bp_config* config, bp_model** model);
/* fp32 tensor of rows x cols (vectors: rows = 1). Copied. */
BP_API bp_status bp_model_set_float(bp_model* model, const char* name, const float* data, size_t rows, size_t cols);
/* Packed tensor. Linear weights of layers and pooler need BP_UINT8_TOKEN or BP_UINT8_STATIC and at most 65,536 columns,
 * or are binary of one term with BP_SIGNS, and are re-laid; the word embedding is used in place, so its `codes` must
 * outlive the model. Everything else is fp32 only. Invalid codes, padding that is not zero, scales that are not finite
 * and positive, offsets and outliers that are not finite and outliers in places that are none are refused. */
BP_API bp_status bp_model_set_packed(bp_model* model, const char* name, const bp_packed* tensor);
/* Static range of an activation point: value = scale * code + offset. Only with BP_UINT8_STATIC. A range is needed for
 * the points inside attention and for every input of a packed linear layer. */
BP_API bp_status bp_model_set_range(bp_model* model, const char* point, float scale, float offset);
/* Checks that nothing is missing, frees what building needed. */
BP_API bp_status bp_model_finish(bp_model* model);
BP_API void bp_model_free(bp_model* model);
/* Of a finished model's linear weight: its panels of 16 outputs, and how many of them the fast kernel multiplies. A
 * panel with two neighbouring 8-bit weights whose magnitudes add up to more than 128 takes a slower one. fp32
 * weights, and those of BP_SIGNS: 0, 0. */
BP_API bp_status bp_model_panels(const bp_model* model, const char* name, size_t* panels, size_t* fast_panels);

/* Runs a batch without padding. ids and type_ids: the B sequences one after another (N = sum of lengths); type_ids may
 * be NULL (all 0). lengths[B], each 1..max_positions. logits: B x C, with BP_HEAD_TOKENS N x C, written. hidden_states:
 * NULL, or (L+1) x N x H, written (embedding output first). threads: 0 = all processors, otherwise at most that many,
 * this one included; while another call has the worker threads, a call runs on its own thread alone. The result of a
 * sequence depends on neither the rest of the batch nor the threads, bit for bit. Memory is taken on the first call of
 * a size and kept with the model. */
BP_API bp_status bp_forward(const bp_model* model, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
                            size_t num_sequences, float* logits, float* hidden_states, uint32_t threads);

/* What bp_profile attributes time to. The linear layers by their place; waiting is what the threads of a call did not
 * spend in any other. */
typedef enum {
  BP_OP_EMBEDDING = 0,
  BP_OP_QUERY_KEY_VALUE = 1,
  BP_OP_ATTENTION_OUTPUT = 2,
  BP_OP_FFN_UP = 3,
  BP_OP_FFN_DOWN = 4,
  BP_OP_HEAD = 5,      /* pooler and classifier, or what else the head has */
  BP_OP_ATTENTION = 6, /* without its softmax */
  BP_OP_SOFTMAX = 7,
  BP_OP_ACTIVATION = 8,
  BP_OP_LAYER_NORM = 9,
  BP_OP_QUANTIZE = 10,
  BP_OP_WAITING = 11,
  BP_OPERATIONS = 12
} bp_operation;

/* As bp_forward, and nanoseconds[BP_OPERATIONS]: the time of each operation, summed over the threads of the call, so
 * that all of them together are its duration times its threads. Reading clocks costs about 1 % of a short call. */
BP_API bp_status bp_profile(const bp_model* model, const int32_t* ids, const int32_t* type_ids, const uint32_t* lengths,
                            size_t num_sequences, float* logits, uint32_t threads, uint64_t* nanoseconds);

/* What one thread of this machine can do, measured in some tens of milliseconds: fp32 multiply-adds a second in
 * registers, with the chosen ISA, and bytes a second copied from memory to memory (each byte counted once). */
BP_API bp_status bp_machine_limits(double* multiply_adds, double* copied_bytes);

/* The activation quantizer alone, as the linear layers use it: one range per row (docs/numerics). For checking that
 * training and engine agree bit for bit. bits: 8 or 4; codes: rows x cols; scale, offset: rows. */
BP_API bp_status bp_quantize_rows(const float* x, size_t rows, size_t cols, uint32_t bits, int symmetric, float clip,
                                  uint8_t* codes, float* scale, float* offset);

/* An elementwise function (bp_function) alone, in place on n floats, by the engine's own polynomial; for replaying a
 * student with the engine's roundings. */
BP_API bp_status bp_apply(uint32_t function, float* x, size_t n);

#ifdef __cplusplus
}
#endif
#endif /* BITPRESS_H_ */
