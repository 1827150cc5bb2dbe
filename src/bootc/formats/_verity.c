/*
 * SHA-256 and SHA-512 of many equally long blocks at once, one block in each lane of an
 * AVX-512 register: what fs-verity's Merkle tree is made of.
 *
 * Optional. bootc.formats._speed decides whether it is used and holds the same functions in
 * Python, which are the specification. Without AVX-512 at build or run time KERNEL is None
 * and the functions raise RuntimeError; why there is no other kernel is told in ADR 14.
 *
 * Stable ABI of Python 3.11, no library, no state. The GIL is released while hashing.
 *
 * Source: FIPS 180-4. SHA-256's constants are the upper halves of SHA-512's.
 */
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_BLOCK 4096
#define MAX_LANES 16

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

static const uint64_t K[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

static const uint64_t INITIAL[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/*
 * Everything below takes `wide`, a constant wherever it is called: true for SHA-512 (8 lanes
 * of 64 bits), false for SHA-256 (16 lanes of 32 bits). Inlining leaves one of the two.
 */
#define AVX512 __attribute__((target("avx512f,avx512bw")))
#define INLINE static inline __attribute__((always_inline)) AVX512

typedef __m512i vec;

INLINE vec broadcast(uint64_t word, int wide)
{
    return wide ? _mm512_set1_epi64((long long)word) : _mm512_set1_epi32((int)(word >> 32));
}

INLINE vec add(vec a, vec b, int wide)
{
    return wide ? _mm512_add_epi64(a, b) : _mm512_add_epi32(a, b);
}

INLINE vec xor3(vec a, vec b, vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }

INLINE vec choose(vec e, vec f, vec g) { return _mm512_ternarylogic_epi64(e, f, g, 0xca); }

INLINE vec majority(vec a, vec b, vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0xe8); }

#define ROTATE3(bits, x, i, j, k) \
    xor3(_mm512_ror_epi##bits(x, i), _mm512_ror_epi##bits(x, j), _mm512_ror_epi##bits(x, k))
#define ROTATE2_SHIFT(bits, x, i, j, k) \
    xor3(_mm512_ror_epi##bits(x, i), _mm512_ror_epi##bits(x, j), _mm512_srli_epi##bits(x, k))

INLINE vec upper_sigma0(vec a, int wide)
{
    return wide ? ROTATE3(64, a, 28, 34, 39) : ROTATE3(32, a, 2, 13, 22);
}

INLINE vec upper_sigma1(vec e, int wide)
{
    return wide ? ROTATE3(64, e, 14, 18, 41) : ROTATE3(32, e, 6, 11, 25);
}

INLINE vec lower_sigma0(vec w, int wide)
{
    return wide ? ROTATE2_SHIFT(64, w, 1, 8, 7) : ROTATE2_SHIFT(32, w, 7, 18, 3);
}

INLINE vec lower_sigma1(vec w, int wide)
{
    return wide ? ROTATE2_SHIFT(64, w, 19, 61, 6) : ROTATE2_SHIFT(32, w, 17, 19, 10);
}

/* With indexes known at compile time the arrays live in registers: 16 + 8 of the 32. */
#define REPEAT16(STEP) \
    STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) \
    STEP(8) STEP(9) STEP(10) STEP(11) STEP(12) STEP(13) STEP(14) STEP(15)

/* Instead of moving a to h down by one each round, the names move up. */
#define NAME(letter, i) s[((letter) - 'a' - (i)) & 7]
#define ROUND(i) \
    { \
        vec e = NAME('e', i), a = NAME('a', i); \
        vec t = add(NAME('h', i), add(w[i], broadcast(K[round + (i)], wide), wide), wide); \
        t = add(t, choose(e, NAME('f', i), NAME('g', i)), wide); \
        t = add(t, upper_sigma1(e, wide), wide); \
        NAME('d', i) = add(NAME('d', i), t, wide); \
        t = add(t, majority(a, NAME('b', i), NAME('c', i)), wide); \
        NAME('h', i) = add(t, upper_sigma0(a, wide), wide); \
    }
#define SCHEDULE(i) \
    w[i] = add(add(w[i], w[((i) + 9) & 15], wide), \
               add(lower_sigma0(w[((i) + 1) & 15], wide), \
                   lower_sigma1(w[((i) + 14) & 15], wide), wide), wide);

INLINE void compress(vec state[8], vec w[16], int wide)
{
    vec s[8];
    memcpy(s, state, sizeof s);
    for (int round = 0;; round += 16) {
        REPEAT16(ROUND)
        if (round + 16 == (wide ? 80 : 64))
            break;
        REPEAT16(SCHEDULE)
    }
    for (int i = 0; i < 8; i++)
        state[i] = add(state[i], s[i], wide);
}

/* Turn 8 rows of 8 words of 64 bits into columns. */
INLINE void transpose8(vec r[8])
{
    vec pairs[8], quads[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 8; j += 4) {
            quads[i + j] = _mm512_shuffle_i64x2(pairs[i + j], pairs[i + j + 2], 0x88);
            quads[i + j + 2] = _mm512_shuffle_i64x2(pairs[i + j], pairs[i + j + 2], 0xdd);
        }
        for (int j = 0; j < 4; j += 2) {
            r[i + j] = _mm512_shuffle_i64x2(quads[i + j], quads[i + j + 4], 0x88);
            r[i + j + 4] = _mm512_shuffle_i64x2(quads[i + j], quads[i + j + 4], 0xdd);
        }
    }
}

/* Turn 16 rows of 16 words of 32 bits into columns. */
INLINE void transpose16(vec r[16])
{
    vec pairs[16], quads[16];
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            quads[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        vec even0 = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0x88);
        vec odd0 = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0xdd);
        vec even1 = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0x88);
        vec odd1 = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(even0, even1, 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
    }
}

INLINE vec byte_order(int wide)
{
    return wide ? _mm512_set4_epi32(0x08090a0b, 0x0c0d0e0f, 0x00010203, 0x04050607)
                : _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
}

/* Read the next 16 words of every lane's block. */
INLINE void load(vec w[16], const unsigned char *const lanes[], size_t offset, int wide)
{
    for (int i = 0; i < 16; i++) {
        const unsigned char *from =
            wide ? lanes[i & 7] + offset + 64 * (i >> 3) : lanes[i] + offset;
        w[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(from), byte_order(wide));
    }
    if (wide) {
        transpose8(w);
        transpose8(w + 8);
    } else {
        transpose16(w);
    }
}

INLINE void store(unsigned char *out, vec state[16], int wide)
{
    if (wide) {
        transpose8(state);
        for (int i = 0; i < 8; i++)
            _mm512_storeu_si512(out + 64 * i, _mm512_shuffle_epi8(state[i], byte_order(wide)));
    } else {
        for (int i = 8; i < 16; i++)
            state[i] = _mm512_setzero_si512();
        transpose16(state);
        for (int i = 0; i < 16; i++)
            _mm256_storeu_si256((__m256i *)(void *)(out + 32 * i),
                                _mm512_castsi512_si256(
                                    _mm512_shuffle_epi8(state[i], byte_order(wide))));
    }
}

INLINE void hash_lanes(const unsigned char *const lanes[], size_t size, unsigned char *out, int wide)
{
    vec state[16], w[16];
    for (int i = 0; i < 8; i++)
        state[i] = broadcast(INITIAL[i], wide);
    for (size_t offset = 0; offset < size; offset += wide ? 128 : 64) {
        load(w, lanes, offset, wide);
        compress(state, w, wide);
    }
    /* Blocks are whole, so the padding is a block of its own: a one bit, zeros, the length. */
    for (int i = 0; i < 16; i++)
        w[i] = _mm512_setzero_si512();
    w[0] = broadcast((uint64_t)1 << 63, wide);
    w[15] = broadcast(wide ? size * 8 : (uint64_t)size * 8 << 32, wide);
    compress(state, w, wide);
    store(out, state, wide);
}

AVX512 static void hash_sha256(const unsigned char *const lanes[], size_t size, unsigned char *out)
{
    hash_lanes(lanes, size, out, 0);
}

AVX512 static void hash_sha512(const unsigned char *const lanes[], size_t size, unsigned char *out)
{
    hash_lanes(lanes, size, out, 1);
}

static const char *kernel(void)
{
    /* The compiler's library asks the processor, and whether the system saves the registers. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        return "avx512";
    return NULL;
}

#else

static void hash_sha256(const unsigned char *const lanes[], size_t size, unsigned char *out)
{
    (void)lanes, (void)size, (void)out;
}

static void hash_sha512(const unsigned char *const lanes[], size_t size, unsigned char *out)
{
    (void)lanes, (void)size, (void)out;
}

static const char *kernel(void) { return NULL; }

#endif

struct hash {
    void (*lanes)(const unsigned char *const lanes[], size_t size, unsigned char *out);
    size_t lane_count;
    size_t digest_size;
};

/* Hash `length` bytes, block after block; the last is padded with zeros. No Python in here. */
static void hash_blocks(const struct hash *hash, const unsigned char *data, size_t length,
                        size_t block_size, unsigned char *out)
{
    unsigned char padded[MAX_BLOCK], digests[512];
    const unsigned char *lanes[MAX_LANES];

    while (length > 0) {
        size_t used = 0;
        for (; used < hash->lane_count && length > 0; used++) {
            if (length < block_size) {
                memcpy(padded, data, length);
                memset(padded + length, 0, block_size - length);
                lanes[used] = padded;
                length = 0;
            } else {
                lanes[used] = data;
                data += block_size;
                length -= block_size;
            }
        }
        for (size_t i = used; i < hash->lane_count; i++)
            lanes[i] = lanes[0];
        hash->lanes(lanes, block_size, digests);
        memcpy(out, digests, used * hash->digest_size);
        out += used * hash->digest_size;
    }
}

static PyObject *digests_of(const struct hash *hash, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t block_size;
    if (!PyArg_ParseTuple(args, "y*n", &data, &block_size))
        return NULL;

    PyObject *result = NULL;
    if (kernel() == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the extension has no kernel for this processor");
    } else if (block_size <= 0 || block_size > MAX_BLOCK || block_size % 128 != 0) {
        PyErr_Format(PyExc_ValueError, "block size %zd is not a multiple of 128 up to %d",
                     block_size, MAX_BLOCK);
    } else {
        Py_ssize_t count = data.len / block_size + (data.len % block_size != 0);
        result = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)hash->digest_size);
        if (result != NULL) {
            unsigned char *out = (unsigned char *)PyBytes_AsString(result);
            Py_BEGIN_ALLOW_THREADS
            hash_blocks(hash, data.buf, (size_t)data.len, (size_t)block_size, out);
            Py_END_ALLOW_THREADS
        }
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *sha256_blocks(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const struct hash sha256 = {hash_sha256, 16, 32};
    return digests_of(&sha256, args);
}

static PyObject *sha512_blocks(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const struct hash sha512 = {hash_sha512, 8, 64};
    return digests_of(&sha512, args);
}

static PyMethodDef methods[] = {
    {"sha256_blocks", sha256_blocks, METH_VARARGS,
     "sha256_blocks(data, block_size, /)\n--\n\n"
     "Return the digests of all blocks of data, the last one padded with zeros."},
    {"sha512_blocks", sha512_blocks, METH_VARARGS,
     "sha512_blocks(data, block_size, /)\n--\n\n"
     "Return the digests of all blocks of data, the last one padded with zeros."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    const char *name = kernel();
    if (name != NULL)
        return PyModule_AddStringConstant(module, "KERNEL", name);
    return PyModule_AddObjectRef(module, "KERNEL", Py_None);
}

/* A slot holds a function as void *; the detour keeps ISO C quiet about it. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(intptr_t)execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bootc.formats._verity",
    .m_doc = "Digests of many blocks at once, in the lanes of AVX-512 registers.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__verity(void) { return PyModuleDef_Init(&definition); }
