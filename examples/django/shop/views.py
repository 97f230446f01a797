from django.http import JsonResponse
from django.shortcuts import get_object_or_404

from . import tasks
from .models import Order


def order(request, pk):
    found = get_object_or_404(Order, pk=pk)
    return JsonResponse({"customer": found.customer, "total": found.total, "receipt": found.receipt_sent_at})


def price(request, pk):
    """Has the sum computed and answers with the task's id."""
    found = get_object_or_404(Order, pk=pk)
    result = tasks.total.delay(list(found.lines.values_list("price", flat=True)))
    return JsonResponse({"task": result.id})
