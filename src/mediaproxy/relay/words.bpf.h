/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Types and words of the language that the kernel program and fastpath.c share, in gcc and clang alike.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define INLINE static inline __attribute__((always_inline))
#define CALLED static __attribute__((noinline)) /* with a stack frame of its own; at most five arguments */
/* Without CAP_PERFMON the verifier wants no map pointer moved by a loop's counter. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL
#endif
#define opaque(x) __asm__ volatile("" : "+r"(x)) /* the compiler makes no assumptions about x */
#define barrier() __asm__ volatile("" ::: "memory")
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((u16)__builtin_bswap16((u16)(x)))
#define be32(x) ((u32)__builtin_bswap32((u32)(x)))
#else
#define be16(x) ((u16)(x))
#define be32(x) ((u32)(x))
#endif

/* Whether two addresses are equal. */
INLINE int same(const u32 *one, const u32 *other)
{
    return !((one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]));
}
