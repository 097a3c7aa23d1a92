// FP8 products by Hopper's own instruction, wgmma.mma_async m64n8k32, and nothing around it that adds.
//
// How it works
//     One problem is d (64,8) = c (64,8) + a (64,K) times the transpose of b (8,K): codes of E4M3 or of E5M2, c and d
//     float32. A block of 128 threads, one warpgroup, computes it. All of a and b go to shared memory first; then the
//     instructions of a stretch of K follow one another without a wait between them, as in a real kernel.
//     Not promoted: one accumulator runs through all of K, and begins at c.
//     Promoted: after each stretch the accumulator is added to a float32 total on the CUDA cores, rounded to nearest,
//     and begins at 0 again; the total begins at c (LIN-1 and LIN-2 of SPEC.md).
//     A stretch has 32, 64, 128 or 256 products. Its length is known when this is compiled, and the loop over stretches
//     is not unrolled: else the compiler puts a wait after each instruction.
// How a and b lie in shared memory
//     The instruction reads core matrices of 8 rows by 16 bytes, 128 bytes each, without swizzle. Column j of 16 bytes
//     holds all rows one after another: byte k of a row r of R is at (k / 16 * R + r) * 16 + k % 16. So the next 8 rows
//     are 128 bytes on (the stride offset), and the next 16 bytes along K are 16 * R bytes on (the leading offset).
// How it is built
//     nvcc -gencode arch=compute_90a,code=sm_90a -O2 -shared -Xcompiler -fPIC -o libwgmma.so wgmma.cu

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cuda_runtime.h>

constexpr int M = 64, N = 8, STEP = 32;  // of one instruction
constexpr int THREADS = 128;             // one warpgroup
constexpr int CORE_BYTES = 16;           // of a core matrix's row
constexpr int MOST_K = 2048;             // what shared memory holds: (64 + 8) * 2048 bytes

// ---- where things lie; the host asks these too, so that they are checked where there is no GPU

// The place of byte k of row r, of a matrix of `rows` rows.
__host__ __device__ constexpr int place(int r, int k, int rows) {
  return (k / CORE_BYTES * rows + r) * CORE_BYTES + k % CORE_BYTES;
}

// What tells the instruction where a matrix of `rows` rows begins: three numbers in units of 16 bytes, 14 bits each.
__host__ __device__ constexpr uint64_t descriptor(uint32_t address, int rows) {
  const uint64_t begin = (address & 0x3FFFF) >> 4;
  const uint64_t leading = rows * CORE_BYTES >> 4;  // to the next 16 bytes along K
  const uint64_t stride = 8 * CORE_BYTES >> 4;      // to the next 8 rows
  return begin | leading << 16 | stride << 32;
}

// Which of the 64 x 8 outputs is accumulator i, of 4, of a thread.
__host__ __device__ constexpr int output(int thread, int i) {
  const int warp = thread / 32, lane = thread % 32;
  const int row = warp * 16 + lane / 4 + i / 2 * 8;
  const int column = lane % 4 * 2 + i % 2;
  return row * N + column;
}

// ---- on the GPU

// One instruction: acc += a (64,32) times the transpose of b (8,32). It is only begun here.
#define WGMMA(TYPE)                                                                         \
  asm volatile(                                                                             \
      "wgmma.mma_async.sync.aligned.m64n8k32.f32." TYPE "." TYPE " {%0,%1,%2,%3},%4,%5,1,1,1;" \
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])                               \
      : "l"(a), "l"(b))

template <bool E5M2>
__device__ void multiply(float (&acc)[4], uint64_t a, uint64_t b) {
  if constexpr (E5M2) {
    WGMMA("e5m2");
  } else {
    WGMMA("e4m3");
  }
}

// `rows` rows of K bytes, into the places where the instruction looks for them.
__device__ void lay_out(uint8_t* shared, const uint8_t* matrix, int rows, int K) {
  for (int i = threadIdx.x; i < rows * K; i += THREADS) {
    shared[place(i / K, i % K, rows)] = matrix[i];
  }
}

// `length` products from `begin` on, chained; returns when the accumulator is there.
template <bool E5M2, int LENGTH>
__device__ void stretch(float (&acc)[4], uint32_t a, uint32_t b, int begin) {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = begin; k < begin + LENGTH; k += STEP) {
    multiply<E5M2>(acc, descriptor(a + place(0, k, M), M), descriptor(b + place(0, k, N), N));
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])::"memory");
}

template <bool E5M2, bool PROMOTED, int LENGTH>
__global__ void problem(const uint8_t* a, const uint8_t* b, const float* c, float* d, int K) {
  extern __shared__ __align__(128) uint8_t shared[];
  const size_t mine = blockIdx.x;
  lay_out(shared, a + mine * M * K, M, K);
  lay_out(shared + M * K, b + mine * N * K, N, K);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // what was just written is seen by the instruction
  __syncthreads();

  const uint32_t a_at = static_cast<uint32_t>(__cvta_generic_to_shared(shared)), b_at = a_at + M * K;
  float acc[4], total[4];
  for (int i = 0; i < 4; ++i) {
    total[i] = c[mine * M * N + output(threadIdx.x, i)];
    acc[i] = PROMOTED ? 0.0f : total[i];
  }
#pragma unroll 1
  for (int begin = 0; begin < K; begin += LENGTH) {
    stretch<E5M2, LENGTH>(acc, a_at, b_at, begin);
    if constexpr (PROMOTED) {
      for (int i = 0; i < 4; ++i) {
        total[i] = __fadd_rn(total[i], acc[i]);
        acc[i] = 0.0f;
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    d[mine * M * N + output(threadIdx.x, i)] = PROMOTED ? total[i] : acc[i];
  }
}

// ---- on the host: each call's return code is looked at, and the first that is not success becomes a sentence

static char said[512] = "";

static bool fails(const char* call, cudaError_t code) {
  if (code != cudaSuccess) {
    snprintf(said, sizeof said, "%s: %s: %s", call, cudaGetErrorName(code), cudaGetErrorString(code));
  }
  return code != cudaSuccess;
}

#define TRY(call)                          \
  do {                                     \
    if (fails(#call, (call))) return 1;    \
  } while (0)

// Memory on the GPU, given back when its scope ends.
struct Held {
  void* at = nullptr;
  ~Held() { cudaFree(at); }
};

using Kernel = void (*)(const uint8_t*, const uint8_t*, const float*, float*, int);

template <bool E5M2, bool PROMOTED>
static Kernel of_length(int length) {
  switch (length) {
    case 32: return problem<E5M2, PROMOTED, 32>;
    case 64: return problem<E5M2, PROMOTED, 64>;
    case 128: return problem<E5M2, PROMOTED, 128>;
    case 256: return problem<E5M2, PROMOTED, 256>;
    default: return nullptr;
  }
}

static Kernel kernel_of(bool e5m2, bool promoted, int length) {
  if (e5m2) return promoted ? of_length<true, true>(length) : of_length<true, false>(length);
  return promoted ? of_length<false, true>(length) : of_length<false, false>(length);
}

extern "C" {

const char* wgmma_said() { return said; }
int wgmma_place(int r, int k, int rows) { return place(r, k, rows); }
uint64_t wgmma_descriptor(uint32_t address, int rows) { return descriptor(address, rows); }
int wgmma_output(int thread, int i) { return output(thread, i); }

int wgmma_use(int device) {
  TRY(cudaSetDevice(device));
  return 0;
}

int wgmma_runtime(int* version) {
  TRY(cudaRuntimeGetVersion(version));
  return 0;
}

// n problems: a (n,64,K), b (n,8,K), c and d (n,64,8), all on the host. 0: d is written; 1: wgmma_said() says why not.
int wgmma_run(int e5m2, int promoted, int length, int n, int K, const void* a, const void* b, const void* c, void* d) {
  const Kernel kernel = kernel_of(e5m2, promoted, length);
  if (!kernel || n < 1 || K < 1 || K % length || K > MOST_K) {
    snprintf(said, sizeof said, "there is no kernel for %d problems of K %d in stretches of %d", n, K, length);
    return 1;
  }
  const size_t a_bytes = size_t(n) * M * K, b_bytes = size_t(n) * N * K, c_bytes = size_t(n) * M * N * sizeof(float);
  Held held_a, held_b, held_c, held_d;
  TRY(cudaMalloc(&held_a.at, a_bytes));
  TRY(cudaMalloc(&held_b.at, b_bytes));
  TRY(cudaMalloc(&held_c.at, c_bytes));
  TRY(cudaMalloc(&held_d.at, c_bytes));
  TRY(cudaMemcpy(held_a.at, a, a_bytes, cudaMemcpyHostToDevice));
  TRY(cudaMemcpy(held_b.at, b, b_bytes, cudaMemcpyHostToDevice));
  TRY(cudaMemcpy(held_c.at, c, c_bytes, cudaMemcpyHostToDevice));
  TRY(cudaMemset(held_d.at, 0xFF, c_bytes));  // NaN, where nothing comes to be written

  const int shared_bytes = (M + N) * K;
  TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  kernel<<<n, THREADS, shared_bytes>>>(static_cast<uint8_t*>(held_a.at), static_cast<uint8_t*>(held_b.at),
                                       static_cast<float*>(held_c.at), static_cast<float*>(held_d.at), K);
  TRY(cudaGetLastError());
  TRY(cudaDeviceSynchronize());
  TRY(cudaMemcpy(d, held_d.at, c_bytes, cudaMemcpyDeviceToHost));
  return 0;
}
}
