/*
 * The boot loader of the floppy: it fills the first 1024 bytes, which ext2 leaves free, and starts
 * /bzImage with the words of /cmdline, which it finds in the root directory of that ext2.
 *
 *   0x00600  variables         0x08400  block of the inode table, of the root directory
 *   0x07c00  this              0x08c00  indirect block         0x09400  doubly indirect block
 *   0x10000  up to 32 KB of a file on their way
 *   0x20000  the kernel's setup code, its heap and stack; 0x2e000  the command line
 *   0x100000 the kernel proper
 *
 * Sources: Documentation/x86/boot.rst (the boot protocol, "Memory layout", "Running the kernel"),
 * Documentation/filesystems/ext2.rst and fs/ext2/ext2.h (blocks of 1 KiB, inodes of 128 bytes, and
 * one group, as tasks/filesystem/floppy.py makes them), Ralf Brown's interrupt list (13h, 15h/87h).
 */
        .code16
        .intel_syntax noprefix

        .set    VARS, 0x600
        .set    GDT, 0x640              /* 48 bytes for int 15h/87h */
        .set    INODE, 0x700            /* the inode in use */
        .set    SIZE, INODE + 4         /* i_size */
        .set    BLOCKS, INODE + 40      /* i_block: 12 direct ones, indirect, doubly indirect */
        .set    BUF, 0x8400
        .set    IND, 0x8c00             /* the word before IND and DIND is the number of the block there */
        .set    DIND, 0x9400
        .set    DATA, 0x1000            /* segments */
        .set    SETUP, 0x2000
        .set    HEAP_END, 0xe000
        .set    RUN, 32                 /* most blocks that are read at once */
        .set    NAME, 7                 /* letters of "bzImage", and of "cmdline" */
        .set    DRIVE, 0                /* variables, from VARS (bp) on */
        .set    SECTORS, 2              /* in a track */
        .set    HEADS, 4
        .set    TABLE, 6                /* first block of the inode table */
        .set    COUNT, 8                /* blocks of the file */
        .set    LEFT, 10                /* sectors of the setup code still to come */
        .set    DEST, 12                /* where the next sector goes */

        .globl  _start
_start: jmp     begin
        nop
        .org    0x3e                    /* FAT's parameters, which a BIOS may write to: fat.py */
begin:  cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        ljmp    0, normal               /* some BIOSes begin at 07c0:0000 */
normal: mov     di, VARS
        mov     bp, di
        mov     cx, (INODE - VARS) / 2
        rep     stosw
        mov     [IND - 2], ax
        mov     [DIND - 2], ax
        mov     [bp + DRIVE], dl
        mov     al, 0xe3                /* COM1: 9600 bits a second, 8N1, as the kernel's console */
        xor     dx, dx
        int     0x14
        mov     si, offset hello
        call    print
        mov     dl, [bp + DRIVE]
        mov     ah, 8                   /* the drive's geometry */
        xor     di, di
        int     0x13
        mov     ax, 0
        mov     es, ax
        jc      floppy
        mov     al, dh
        inc     ax
        and     cx, 63
        jnz     known
floppy: mov     cx, 18
        mov     ax, 2
known:  mov     [bp + SECTORS], cx
        mov     [bp + HEADS], ax
        mov     ax, 1
        mov     cx, ax
        mov     bx, offset second
        call    read
        jmp     second

/* Print the text at si on screen and COM1. */
print:  lodsb
        test    al, al
        jz      9f
        call    letter
        jmp     print
letter: pusha
        mov     bx, 7
        mov     ah, 0x0e
        push    ax
        int     0x10
        pop     ax
        mov     ah, 1
        xor     dx, dx
        int     0x14
        popa
9:      ret

/* Print the text at si, wait for a key, and have the BIOS try the next drive. */
fail:   call    print
        mov     si, offset again
        call    print
        xor     ax, ax
        int     0x16
        int     0x19

/* Read cx sectors from sector ax on to es:bx, track by track. */
read:   pusha
1:      push    ax
        push    cx
        xor     dx, dx
        div     word ptr [bp + SECTORS]
        mov     si, [bp + SECTORS]
        sub     si, dx                  /* what is left in this track */
        cmp     si, cx
        jbe     2f
        mov     si, cx
2:      mov     cx, dx
        inc     cx
        xor     dx, dx
        div     word ptr [bp + HEADS]
        mov     ch, al
        mov     dh, dl
        mov     dl, [bp + DRIVE]
        mov     di, 5                   /* a floppy's motor may still be speeding up */
3:      mov     ax, si
        mov     ah, 2
        pusha
        int     0x13
        popa
        jnc     4f
        pusha
        xor     ax, ax
        int     0x13
        popa
        dec     di
        jnz     3b
        mov     si, offset broken
        jmp     fail
4:      pop     cx
        pop     ax
        add     ax, si
        sub     cx, si
        shl     si, 9
        add     bx, si
        test    cx, cx
        jnz     1b
        popa
        ret

/* Read block ax to es:bx. */
block:  pusha
        add     ax, ax
        mov     cx, 2
        call    read
        popa
        ret

/* Find the name at si in the root directory, and get its inode; CF if there is none. */
find:   push    si
        mov     ax, 2
        call    inode
        pop     si
        xor     dx, dx
1:      mov     bx, dx
        mov     ax, [BLOCKS + bx]
        test    ax, ax
        jz      8f
        mov     bx, BUF
        call    block
2:      cmp     word ptr [bx], 0        /* a free entry */
        je      3f
        cmp     byte ptr [bx + 6], NAME
        jne     3f
        push    si
        lea     di, [bx + 8]
        mov     cx, NAME
        repe    cmpsb
        pop     si
        je      inode_of
3:      add     bx, [bx + 4]
        cmp     bx, BUF + 1024
        jb      2b
        add     dx, 4
        cmp     dx, 12 * 4
        jb      1b
8:      stc
        ret

/* Copy the inode of the directory entry at bx, or number ax, to INODE; CF is clear. */
inode_of:
        mov     ax, [bx]
inode:  dec     ax
        mov     si, ax
        shr     ax, 3
        add     ax, [bp + TABLE]
        mov     bx, BUF
        call    block
        and     si, 7
        shl     si, 7
        add     si, bx
        mov     di, INODE
        mov     cx, 64
        rep     movsw
        clc
        ret

/* Return in ax the number of the block bx of the file; 0 for a hole. */
map:    mov     si, BLOCKS
        cmp     bx, 12
        jb      2f
        sub     bx, 12
        mov     ax, [BLOCKS + 12 * 4]
        test    bh, bh
        jz      1f
        push    bx
        mov     bl, bh
        dec     bl
        xor     bh, bh
        mov     ax, [BLOCKS + 13 * 4]
        mov     si, DIND
        call    cached
        call    2f
        pop     bx
        xor     bh, bh
1:      mov     si, IND
        call    cached
2:      shl     bx, 2
        mov     ax, [si + bx]
        ret
cached: cmp     ax, [si - 2]
        je      9f
        mov     [si - 2], ax
        push    bx
        mov     bx, si
        call    block
        pop     bx
9:      ret

hello:  .asciz  "Piggyback "
again:  .asciz  ": press a key\r\n"
broken: .asciz  "\r\nread error"
words:  .ascii  "cmdline"

        .org    510
        .word   0xaa55
second: mov     ax, 2                   /* the group's descriptor: bg_inode_table */
        mov     bx, BUF
        call    block
        mov     ax, [BUF + 8]
        mov     [bp + TABLE], ax

        mov     si, offset words
        call    find
        push    SETUP + (HEAP_END >> 4)
        pop     es
        mov     di, 0                   /* keeps CF */
        jc      1f
        xor     bx, bx
        mov     ax, [BLOCKS]
        call    block
        mov     di, [SIZE]
        cmp     di, 1023
        jbe     1f
        mov     di, 1023
1:      mov     byte ptr es:[di], 0
        dec     di
        js      2f
        cmp     byte ptr es:[di], ' '   /* the line's end */
        jb      1b
2:      push    ds
        pop     es

        mov     si, offset kernel
        call    find
        mov     si, offset none
        jc      fail
        mov     dword ptr [bp + DEST], SETUP << 4
        call    load

        mov     dx, 0x3f2               /* the motor off */
        xor     al, al
        out     dx, al
        mov     ax, SETUP
        mov     ds, ax
        mov     es, ax
        mov     fs, ax
        mov     gs, ax
        cli
        mov     ss, ax
        mov     sp, HEAP_END
        sti
        mov     byte ptr [0x210], 0xff  /* type_of_loader: none that has a number */
        or      byte ptr [0x211], 0x80  /* loadflags: CAN_USE_HEAP */
        mov     word ptr [0x224], HEAP_END - 0x200
        mov     dword ptr [0x228], (SETUP << 4) + HEAP_END
        ljmp    SETUP + 0x20, 0

/* Read the file, in runs of blocks that follow each other, and put each in its place. */
load:   mov     eax, [SIZE]
        add     eax, 1023
        shr     eax, 10
        mov     [bp + COUNT], ax
        xor     bx, bx
1:      cmp     bx, [bp + COUNT]
        jae     9f
        push    bx
        call    map
        pop     bx
        mov     dx, ax
        xor     cx, cx
2:      inc     cx
        inc     bx
        cmp     cx, RUN
        jae     3f
        cmp     bx, [bp + COUNT]
        jae     3f
        push    bx
        call    map
        pop     bx
        sub     ax, dx
        cmp     ax, cx
        je      2b
3:      push    bx
        push    DATA
        pop     es
        mov     ax, dx
        add     ax, ax
        add     cx, cx
        xor     bx, bx
        test    ax, ax
        jnz     4f
        push    cx
        xor     di, di
        mov     cx, 512
        rep     stosw
        pop     cx
        jmp     5f
4:      call    read
5:      call    place
        push    ds
        pop     es
        mov     al, '.'
        call    letter
        pop     bx
        jmp     1b
9:      ret

/* Put the cx sectors in DATA where they belong: the setup code, then the kernel proper. */
place:  mov     esi, DATA << 4
        cmp     dword ptr [bp + DEST], SETUP << 4
        jne     1f
        cmp     dword ptr es:[0x202], 0x53726448    /* "HdrS" */
        jne     8f
        mov     al, es:[0x1f1]          /* setup_sects */
        xor     ah, ah
        inc     ax
        mov     [bp + LEFT], ax
        cmp     byte ptr es:[0x206], 10 /* from protocol 2.10 on there are the following two */
        jb      1f
        mov     ah, 0x88                /* KB beyond the first MB, up to 63 MB */
        int     0x15
        jc      1f
        mov     edi, es:[0x258]         /* pref_address, where the kernel unpacks itself */
        add     edi, es:[0x260]         /* init_size, what it needs from there on */
        shr     edi, 10
        sub     di, 1024
        cmp     di, ax
        ja      7f
1:      mov     ax, cx
        cmp     word ptr [bp + LEFT], 0
        je      2f
        cmp     ax, [bp + LEFT]
        jbe     2f
        mov     ax, [bp + LEFT]
2:      mov     ebx, [bp + DEST]
        pusha
        mov     cx, ax
        shl     cx, 8                   /* words */
        push    ds
        pop     es
        mov     word ptr [GDT + 0x10], 0xffff
        mov     [GDT + 0x12], esi
        mov     byte ptr [GDT + 0x15], 0x93
        mov     word ptr [GDT + 0x18], 0xffff
        mov     [GDT + 0x1a], ebx
        mov     byte ptr [GDT + 0x1d], 0x93
        mov     si, GDT
        mov     ah, 0x87
        int     0x15
        popa
        jc      7f
        sub     cx, ax
        movzx   edx, ax
        shl     edx, 9
        add     esi, edx
        add     [bp + DEST], edx
        cmp     word ptr [bp + LEFT], 0
        je      3f
        sub     [bp + LEFT], ax
        jnz     3f
        mov     dword ptr [bp + DEST], 0x100000
3:      test    cx, cx
        jnz     1b
        ret
7:      mov     si, offset full
        jmp     6f
8:      mov     si, offset odd
6:      jmp     fail

kernel: .ascii  "bzImage"
none:   .asciz  "\r\nno /bzImage"
odd:    .asciz  "\r\n/bzImage is no kernel"
full:   .asciz  "\r\ntoo little memory"
        .org    1024
