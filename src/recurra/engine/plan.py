from recurra.engine import reference
def execute(request):
    return reference.run(request)
