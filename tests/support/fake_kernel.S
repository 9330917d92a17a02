/*
 * What a boot loader takes for a bzImage: it says the command line on COM1, then the sum of all bytes
 * of its protected-mode part, and has the machine reset. The test appends bytes to it, and writes the
 * length of that part at 0x604.
 */
        .code16
        .intel_syntax noprefix
        .globl  _start
_start: .org    0x1f1
        .byte   2                       /* setup_sects */
        .org    0x1fe
        .word   0xaa55
        jmp     setup
        .ascii  "HdrS"
        .word   0x20f
        .org    0x211
        .byte   1                       /* LOADED_HIGH */
        .org    0x224
        .word   0
        .org    0x228
words:  .long   0
        .org    0x258
        .quad   0x100000                /* pref_address */
        .long   0x10000                 /* init_size */
        .org    0x270
setup:  mov     eax, [words]
        shr     eax, 4
        mov     es, ax
        xor     si, si
1:      mov     al, es:[si]
        test    al, al
        jz      2f
        mov     ah, 1
        xor     dx, dx
        int     0x14
        inc     si
        jmp     1b
2:      cli
        in      al, 0x92
        or      al, 2
        out     0x92, al
        xor     eax, eax
        mov     ax, ds
        shl     eax, 4
        add     [gdtr + 2], eax
        lgdt    [gdtr]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        .byte   0x66, 0xea              /* jmp 8:0x100000 */
        .long   0x100000
        .word   8
gdt:    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:   .word   . - gdt - 1
        .long   gdt
        .org    0x600                   /* (1 + setup_sects) * 512 */
        .code32
        jmp     high
        .org    0x604
        .long   0                       /* the length */
nothing: .long  0, 0                    /* an empty table of interrupts: the next one resets */
high:   mov     ax, 16
        mov     ds, ax
        mov     esi, 0x100000
        mov     ecx, [esi + 4]
        xor     ebx, ebx
        xor     eax, eax
1:      lodsb
        add     ebx, eax
        loop    1b
        mov     ecx, 8
2:      rol     ebx, 4
        mov     al, bl
        and     al, 15
        cmp     al, 10
        jb      3f
        add     al, 'a' - '0' - 10
3:      add     al, '0'
        mov     dx, 0x3f8
        out     dx, al
        loop    2b
        mov     esi, 0x100000
        lidt    [esi + 8]
        int     3
