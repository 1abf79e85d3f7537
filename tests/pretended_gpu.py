"""A GPU that is only pretended: tensors that say cuda:0, refuse to meet those of the CPU, and compute on the CPU.

Of a GPU it has what breaks code: which tensors may meet, and what has to be copied first. It has neither its speed nor its
rounding. Everything is patched by name and not by a mode of PyTorch, which would count in one thread only.
"""
import contextlib
from types import SimpleNamespace
from unittest.mock import patch

import torch

GPU = torch.device('cuda:0')
aten = torch.ops.aten
FACTORIES = 'empty zeros ones full arange eye tensor rand randn randint randperm linspace triu_indices scalar_tensor'.split()
LIKE = 'empty_like zeros_like ones_like full_like rand_like randn_like'.split()
NEW = 'new_empty new_zeros new_ones new_full new_tensor'.split()
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot}
JOINED = PRODUCTS|{aten.cat, aten.stack, aten.index_select, aten.gather, aten.scatter}      # no scalar of the CPU either
RESHAPES = {aten.squeeze_, aten.unsqueeze_, aten.transpose_, aten.t_}
real = {n: getattr(torch, n) for n in (*FACTORIES, *LIKE, 'as_tensor')}
real_method = {n: getattr(torch.Tensor, n) for n in ('to', 'cpu', 'cuda', *NEW)}


class OnGpu(torch.Tensor):
    "A tensor that holds one of the CPU and says that it is on the GPU."
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, x):
        return torch.Tensor._make_wrapper_subclass(cls, x.shape, strides=x.stride(), storage_offset=x.storage_offset(),
                                                   dtype=x.dtype, layout=x.layout, device='cpu')
    def __init__(self, x): self.x = x
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    data = property(lambda self: self.detach(), lambda self, new: set_data(self, new))
    def get_device(self): return 0
    def numpy(self, *args, **kwargs): raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
    def __array__(self, *args, **kwargs): return self.numpy()
    def untyped_storage(self): return self.x.untyped_storage()
    def tolist(self): return self.x.tolist()
    def __repr__(self, **kwargs): return f'OnGpu({self.x})'

    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kwargs=None):
        flat = list(leaves((args, kwargs)))
        if f.overloadpacket in PRODUCTS and not all(a.is_floating_point() for a in flat if isinstance(a, cls)):
            raise RuntimeError(f'"addmm_cuda" not implemented for whole numbers ({f})')
        check_places(f, args, [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, cls)])
        to = next((a for a in flat if isinstance(a, torch.device) and not in_backward()), GPU)
        inner = each(inside, args)
        out = f(*inner, **each(inside, kwargs or {}))
        if f.overloadpacket in RESHAPES:                               # the outside changes as the inside did
            with torch._C._DisableTorchDispatch(): return f(*args, **kwargs or {})
        own = {id(a.x): a for a in flat if isinstance(a, cls)}
        if f.overloadpacket is aten.copy_: return own.get(id(inner[0]), inner[0])
        def outside(y):
            if not isinstance(y, torch.Tensor) or to.type=='cpu': return y
            same = own.get(id(y))
            assert same is None or same.shape==y.shape, f'{f} changes a shape in place, which is not pretended'
            return cls(y) if same is None else same
        return each(outside, out)


def leaves(x):
    "All that nested lists, tuples and dicts hold."
    if isinstance(x, dict): x = list(x.values())
    if not isinstance(x, (list, tuple)): yield x
    else:
        for y in x: yield from leaves(y)

def each(f, x):
    "The same nested lists, tuples and dicts of `f` of what they hold."
    if isinstance(x, dict): return {k: each(f, y) for k, y in x.items()}
    return type(x)([each(f, y) for y in x]) if type(x) in (list, tuple) else f(x)

def inside(x): return x.x if isinstance(x, OnGpu) else 'cpu' if isinstance(x, torch.device) else x

def set_data(self, new):
    torch._C.TensorBase.data.__set__(self, new)
    self.x = new.x

def in_backward():
    "Is PyTorch in a backward pass? It takes the device of what it makes itself from below the pretence, where that is the CPU."
    return torch._C._current_graph_task_id()>=0

def check_places(f, args, plain):
    "Raise as CUDA does where an operation has tensors of both devices."
    op = f.overloadpacket
    if not plain or op in (aten.copy_, aten._to_copy) or in_backward(): return
    if op in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index) and isinstance(args[0], OnGpu):
        indices = [i for i in args[1] if i is not None]                # numbers of rows may be on the CPU
        plain = [a for a in plain if not any(a is i for i in indices)]
    written = f._schema.arguments and f._schema.arguments[0].alias_info is not None and f._schema.arguments[0].alias_info.is_write
    if any(a.ndim for a in plain) or plain and (op in JOINED or written and not isinstance(args[0], (OnGpu, list, tuple))):
        raise RuntimeError(f'Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({f})')


class Move(torch.autograd.Function):
    "A copy to the other device, through which gradients come back."
    @staticmethod
    def forward(ctx, x): return x.x.clone() if isinstance(x, OnGpu) else OnGpu(x.detach().clone())
    @staticmethod
    def backward(ctx, g): return Move.apply(g)


def at(x, device):
    "The tensor on a device, a copy if it is elsewhere."
    if device is None: return x
    kind = torch.device(device).type
    if kind not in ('cpu', 'cuda') or (kind=='cuda')==isinstance(x, OnGpu): return x
    return Move.apply(x)

def to(self, *args, **kwargs):
    "`Tensor.to`: device, type and layout, each if given."
    if args and isinstance(args[0], torch.Tensor): args = args[0].device, args[0].dtype
    device = kwargs.get('device') or next((a for a in args if isinstance(a, (str, torch.device)) or type(a) is int), None)
    dtype = kwargs.get('dtype') or next((a for a in args if isinstance(a, torch.dtype)), None)
    more = dict(dtype=dtype, memory_format=kwargs.get('memory_format'))
    if device is not None and torch.device(device).type=='meta': more['device'] = device
    more = {k: v for k, v in more.items() if v is not None}
    return at(real_method['to'](self, **more) if more else self, device)

def factory(f, like=False):
    "The same factory, which makes tensors of the GPU where it is told to."
    def made(*args, device=None, **kwargs):
        if device is not None and torch.device(device).type!='cuda': return f(*args, device=device, **kwargs)
        if device is None and like: return f(*args, **kwargs)
        grad = device is not None and kwargs.pop('requires_grad', False)
        x = f(*args, **kwargs)
        return at(x, device).requires_grad_() if grad else at(x, device)
    return made

def new(f):
    "The same method, which makes tensors where the one it is called on is."
    made = factory(f, True)
    def method(self, *args, device=None, **kwargs): return made(self, *args, device=device or self.device, **kwargs)
    return method

def as_tensor(x, dtype=None, device=None):
    if isinstance(x, OnGpu): return to(x, *(device,)*(device is not None), **dict(dtype=dtype) if dtype else {})
    if device is None or torch.device(device).type!='cuda': return real['as_tensor'](x, dtype=dtype, device=device)
    return at(real['as_tensor'](x, dtype=dtype), device)

def tensor(x, dtype=None, device=None, requires_grad=False):
    x = x.detach().clone() if isinstance(x, torch.Tensor) else real['tensor'](x, dtype=dtype)
    x = to(x, *(device,)*(device is not None), **dict(dtype=dtype) if dtype else {})
    return x.requires_grad_() if requires_grad else x

@contextlib.contextmanager
def pretended_gpu():
    "Let PyTorch have a GPU within the block."
    with contextlib.ExitStack() as stack:
        for n in FACTORIES: stack.enter_context(patch.object(torch, n, factory(real[n])))
        for n in LIKE: stack.enter_context(patch.object(torch, n, factory(real[n], True)))
        for n in NEW: stack.enter_context(patch.object(torch.Tensor, n, new(real_method[n])))
        for n, f in dict(as_tensor=as_tensor, tensor=tensor).items(): stack.enter_context(patch.object(torch, n, f))
        for n, f in dict(to=to, cpu=lambda x: at(x, 'cpu'), cuda=lambda x, *a, **k: at(x, GPU)).items():
            stack.enter_context(patch.object(torch.Tensor, n, f))
        said = dict(is_available=True, device_count=1, is_bf16_supported=False, synchronize=None, get_device_name='pretended',
                    is_current_stream_capturing=False, current_device=0)
        for n, v in said.items(): stack.enter_context(patch.object(torch.cuda, n, lambda *args, v=v, **kwargs: v))
        stack.enter_context(patch.object(torch.accelerator, 'current_stream', lambda *args: SimpleNamespace(is_capturing=lambda: False)))
        # a module takes over what it is moved to as a new parameter
        stack.enter_context(patch.object(torch, '_has_compatible_shallow_copy_type', lambda a, b: isinstance(a, OnGpu)==isinstance(b, OnGpu)))
        yield GPU
